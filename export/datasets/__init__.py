"""Read photographs with their classes and boxes from several data set formats. No torch here."""
