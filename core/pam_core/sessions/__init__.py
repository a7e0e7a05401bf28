"""A video or a camera through a tracker: sessions, events, captions behind the frames."""
