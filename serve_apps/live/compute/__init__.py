"""The process that computes live streams: a live replica, its engine, its one computing thread."""
