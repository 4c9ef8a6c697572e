"""How things are named on the command line: read by people in `--help`, and in the errors for what is not so."""

SPECS = """\
  folder:DIR[,DIR...]          a class is a folder that holds pictures, told by its name; every picture is a query
  csv:FILE                     lines of path,class (paths from the file's folder); every picture is a query
  grocery:ROOT[,PART...]       GroceryStoreDataset or parts of it, such as Packages; every picture is a query
  pairs:QUERIES,REFERENCES     two folders; the same file stem is a match
  revisitop:ROOT,NAME          Revisited Oxford or Paris: gnd_NAME.pkl and jpg/ in ROOT or ROOT/NAME"""
NEIGHBOURS = "1,2,4,8,16,32,64"
"""Of a sweep that names none."""
