"""Storage commitment as provider (PS3.4 annex J): what is asked, what is really held, and the report."""
