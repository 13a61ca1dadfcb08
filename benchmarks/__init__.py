"""Measurements that can be repeated: what the plugin does beside the receivers that hospitals run."""
