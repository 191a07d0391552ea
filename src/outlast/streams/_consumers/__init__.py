"""Consumers of a stream: durable cursors with leases, acknowledgement, and a bounded number of deliveries."""
