"""Where a run tells what happens: events.jsonl, and guarded hand-over to other trackers."""
