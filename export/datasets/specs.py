"""How a data set is named on the command line: read by people in `--help`, and in the error for one that is not."""

SPECS = """\
  folder:DIR[,DIR...]               a class is a folder that holds pictures, told by its name
  csv:FILE                          lines of path,class (paths from the file's folder), or path,class,x0,y0,x1,y1
  grocery:ROOT[,PART...]            GroceryStoreDataset, its three splits pooled, or parts such as Fruit,Vegetables
  sfm:ROOT,NAME[,train|val]         retrieval-SfM: NAME.pkl and ims/; a class is a 3D reconstruction
  gld:CSV,IMAGES[,without=FILE]     Google Landmarks v2: train.csv or train_clean.csv, without the classes in FILE
  boxes:CSV,IMAGES[,labels=CSV]     boxes of landmarks: id,box or Open Images' columns; labels=train.csv has classes
  revisitop:ROOT,NAME               queries of Revisited Oxford or Paris with boxes: gnd_NAME.pkl and jpg/"""
