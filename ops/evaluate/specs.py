"""The names of data sets and methods on the command line, for `--help` and for errors."""

SPECS = """\
  folder:DIR[,DIR...]          the folder of a picture is its class, by name; every picture is a query
  csv:FILE                     lines of path,class (paths relative to the file); every picture is a query
  grocery:ROOT[,PART...]       GroceryStoreDataset or parts of it, such as Packages; every picture is a query
  pairs:QUERIES[,...],REFERENCES  folders; pictures with the same file stem match, the last folder is searched
  revisitop:ROOT,NAME          Revisited Oxford or Paris: gnd_NAME.pkl and jpg/ in ROOT or ROOT/NAME"""
METHOD_SPECS = """\
  none                                 rank by cosine, without expansion
  aqe aqewd aqewd-dir dqe rank-curve   NAME[:NEIGHBOURS]: expand the query by its nearest neighbours
  lattqe[:NEIGHBOURS]                  the same by the exported network, trained or not
  alphaqe[:NEIGHBOURS[:ALPHA]]         the same by alphaQE
  adba adbawd adbawd-dir ddba          NAME[:NEIGHBOURS]: expand every vector of the database
  rank-curve-dba[:NEIGHBOURS]          the same by the rank curve
  alphadba[:NEIGHBOURS[:ALPHA]]        the same by alphaQE
  lattdba[:NEIGHBOURS[:T]]             the same by LAttQE's network; T: temperature of the softmax
  DATABASE+QUERY                       augment the database, then expand the query: alphadba:10+alphaqe:10
  diffusion[:NEIGHBOURS[:QUERY_NEIGHBOURS]]
                                       diffusion over the nearest-neighbour graph of the database
  asmk[:WORDS] rasmk[:WORDS]           ASMK* of local descriptors; R-ASMK* also of regions
  asmk-max[:WORDS] asmk-mean[:WORDS]   ASMK* of each region; a picture gets the best or the mean
  vlad rvlad asmk-fp32 rasmk-fp32      [:WORDS]: not binarised, for comparison
  rasmk-naive[:WORDS]                  the mean ASMK of the regions, for comparison
  words[:WORDS]                        rank by cosine; pictures that share a visual word come first
  coattention[:CANDIDATES[:WEIGHT]]    re-rank the best candidates by co-attention; alone or after a +;
                                       WEIGHT is 1 by default, in a request to a server 0.5
  coattention-naive[:...]              the same with every local feature, without clusters
  spatial[:CANDIDATES]                 re-rank the best candidates by spatial verification
  sift                                 the baseline, without our models: OpenCV's RootSIFT of every picture, brute
                                       force over all references, rank by the inliers of a homography
  keypoints                            rank by visual words of keypoints
  both                                 global descriptor and these words, merged by rank
  once                                 the default without its second search: both, verified by keypoints and patches
  default                              what a service does without options: searches again by the verified hits;
                                       with --server, whatever that service does
  verified[:NEIGHBOURS]                the same by at most so many verified hits"""
_EXPANSIONS = "none,aqe,aqewd,aqewd-dir,alphaqe,alphaqe:10,dqe,rank-curve"
SERVED_METHODS = f"default,{_EXPANSIONS}"
"""The default rows for a service: its default, and the expansions that a request can name."""
METHODS = (
    f"{_EXPANSIONS},adba+aqe,adbawd+aqewd,adbawd-dir:20+aqe:10,alphadba:10,alphadba:10+alphaqe:10,ddba+dqe,diffusion"
)
"""The default rows in process, see docs/evaluate.md."""
REGIONS = 2
"""Default limit of regions per picture. Each costs as much as describing the picture."""
NEIGHBOURS = "1,2,4,8,16,32,64"
"""Default numbers of neighbours of a sweep."""
