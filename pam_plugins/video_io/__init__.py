"""Results of a video: the record, and MOT text and tracks made from it."""
