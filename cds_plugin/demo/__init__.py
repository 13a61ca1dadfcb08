"""A stranger's first look: a PACS on loopback, a study through the whole path, a readable summary."""
