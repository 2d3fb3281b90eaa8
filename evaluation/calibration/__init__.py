"""`foi calibrate`: which mask setting and which guidance scales suit a checkpoint, on a user's own pictures."""
