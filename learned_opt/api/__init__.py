"""The Python door: plain objects in, results out; what the commands do, without configs."""
