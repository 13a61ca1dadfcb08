"""Studies fetched from a PACS, through the same reception as a C-STORE. It must never build a result."""
