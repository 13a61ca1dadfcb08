"""Files of the storage directory sealed with a key that lies outside it, and the one way to read them."""
