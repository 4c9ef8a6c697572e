// The same closed loop as the locustfile's search_picture: `make load` runs both in turns.
// k6 run -e HOST=127.0.0.1:7070 -e PHOTOS=a.jpg,b.jpg -e PROTO=client/proto -e VUS=4 -e SECONDS=15 ops/load/k6.js
import encoding from "k6/encoding";
import grpc from "k6/net/grpc";
import { Counter } from "k6/metrics";

const client = new grpc.Client();
client.load([__ENV.PROTO], "landseer/v1/search.proto");
const photos = __ENV.PHOTOS.split(",").map((path) => encoding.b64encode(open(path, "b")));
const failed = new Counter("landseer_failed");

export const options = {
  scenarios: { searches: { executor: "constant-vus", vus: Number(__ENV.VUS), duration: `${__ENV.SECONDS}s` } },
};

let connected = false;

export default function () {
  if (!connected) {
    client.connect(__ENV.HOST, { plaintext: true });
    connected = true;
  }
  const image = photos[Math.floor(Math.random() * photos.length)];
  const request = {
    image: image,
    topK: 10,
    firstStage: "FIRST_STAGE_GLOBAL",
    reranking: { method: "RERANKING_METHOD_NONE" },
  };
  const answer = client.invoke("landseer.v1.SearchService/Search", request, { timeout: "30s" });
  if (!answer || answer.status !== grpc.StatusOK || answer.message.hits.length === 0) {
    failed.add(1);
  }
}
