"""What stands in a file: lines, JSON, YAML, tables in text, arrays, messages; damage told, nothing executed."""
