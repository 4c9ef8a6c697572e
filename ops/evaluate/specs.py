"""How things are named on the command line: read by people in `--help`, and in the errors for what is not so."""

SPECS = """\
  folder:DIR[,DIR...]          a class is a folder that holds pictures, told by its name; every picture is a query
  csv:FILE                     lines of path,class (paths from the file's folder); every picture is a query
  grocery:ROOT[,PART...]       GroceryStoreDataset or parts of it, such as Packages; every picture is a query
  pairs:QUERIES,REFERENCES     two folders; the same file stem is a match
  revisitop:ROOT,NAME          Revisited Oxford or Paris: gnd_NAME.pkl and jpg/ in ROOT or ROOT/NAME"""
METHOD_SPECS = """\
  none                                 the cosine alone
  aqe aqewd aqewd-dir dqe rank-curve   NAME[:NEIGHBOURS]: the query expanded by its nearest
  lattqe[:NEIGHBOURS]                  the same by the exported network, trained or not
  alphaqe[:NEIGHBOURS[:ALPHA]]         the same by alphaQE
  adba adbawd adbawd-dir ddba          NAME[:NEIGHBOURS]: every vector of the database expanded by its nearest
  rank-curve-dba[:NEIGHBOURS]          the same by the rank curve
  alphadba[:NEIGHBOURS[:ALPHA]]        the same by alphaQE
  lattdba[:NEIGHBOURS[:T]]             the same by LAttQE, softmax over T
  DATABASE+QUERY                       first one of the database, then one of the query: alphadba:10+alphaqe:10
  diffusion[:NEIGHBOURS[:OF_QUERY]]    over the graph of the database's nearest neighbours
  asmk[:WORDS] rasmk[:WORDS]           ASMK* and R-ASMK* by local descriptors, of regions too
  asmk-max[:WORDS] asmk-mean[:WORDS]   the best or the mean of a picture's regions, each an entry by ASMK*
  vlad rvlad asmk-fp32 rasmk-fp32      [:WORDS]: without bits, for comparison
  rasmk-naive[:WORDS]                  the mean of the regions' ASMKs, for comparison
  words[:WORDS]                        the cosine, first those that share a visual word
  coattention[:CANDIDATES[:WEIGHT]]    the first ranked anew by co-attention, alone or behind a +
  coattention-naive[:...]              the same by every local feature, without clusters
  spatial[:CANDIDATES]                 the first ranked anew by spatial verification"""
SERVED_METHODS = "none,aqe,aqewd,aqewd-dir,alphaqe,alphaqe:10,dqe,rank-curve"
"""What a table compares unless it is told otherwise, of a service: what a request can ask for."""
METHODS = (
    f"{SERVED_METHODS},adba+aqe,adbawd+aqewd,adbawd-dir:20+aqe:10,alphadba:10,alphadba:10+alphaqe:10,ddba+dqe,diffusion"
)
"""The same in process. Numbers are published ones, none was tuned: docs/evaluate.md."""
REGIONS = 2
"""Of a picture at most, unless it is said otherwise: each is described as a picture is, so one costs as much again."""
NEIGHBOURS = "1,2,4,8,16,32,64"
"""Of a sweep that names none."""
