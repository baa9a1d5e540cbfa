"""Networks in files and as data; `Network.save` and `fastbp.load` are what users call."""
