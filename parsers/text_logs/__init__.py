"""The parts of plain text logs: dialects, lines, numbers."""
