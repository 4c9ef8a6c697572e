"""The data set specs of the command line, as shown in `--help` and in the error for an unknown spec."""

SPECS = """\
  folder:DIR[,DIR...]               each folder with pictures is a class of that name
  csv:FILE                          path,class (paths relative to the file), or path,class,x0,y0,x1,y1
  grocery:ROOT[,PART...]            GroceryStoreDataset, three splits pooled; or parts such as Fruit,Vegetables
  sfm:ROOT,NAME[,train|val]         retrieval-SfM: NAME.pkl and ims/; a class is a 3D reconstruction
  gld:CSV,IMAGES[,without=FILE]     Google Landmarks v2: train.csv or train_clean.csv, without the classes in FILE
  boxes:CSV,IMAGES[,labels=CSV]     landmark boxes: id,box or Open Images' columns; classes from labels=train.csv
  revisitop:ROOT,NAME               queries of Revisited Oxford or Paris with boxes: gnd_NAME.pkl and jpg/"""
