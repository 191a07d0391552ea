"""The way to etcd: its JSON gateway."""
