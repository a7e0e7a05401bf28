"""Pictures and frames in: image files, video files, folders, cameras."""
