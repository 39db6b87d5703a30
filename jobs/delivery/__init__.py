"""Delivery: results and notices on their way to where people read them. A delivery never changes a run."""
