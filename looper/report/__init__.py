"""What people read of a run: terminal tables, live progress, CSV and one self-contained HTML page."""
