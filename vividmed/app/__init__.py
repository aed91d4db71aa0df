"""The page for people: a scan, a conversation about it, and a report whose phrases light up in the scan."""
