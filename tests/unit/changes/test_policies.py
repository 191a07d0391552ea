"""The policies of a stream: options that contradict each other are refused where they are written."""

from __future__ import annotations

from typing import Any

import pytest

from outlast import ConfigurationError
from outlast.changes import DeliveryPolicy, OwnerPolicy, Quarantine, SourcePolicy
from outlast.postgres.replication import Keepalive


@pytest.mark.parametrize(
    ("policy", "options", "problem"),
    [
        (SourcePolicy, {"lost": "skip"}, "lost='skip', which is 'stop' or 'snapshot'"),
        (SourcePolicy, {"tables": ()}, "a list of one name or more; leave it out for all"),
        (SourcePolicy, {"tables": "orders"}, "a list of one name or more"),
        (SourcePolicy, {"snapshot": True, "snapshot_workers": 0}, "snapshot_workers=0, which is 1 to 64"),
        (SourcePolicy, {"snapshot": True, "snapshot_workers": 65}, "snapshot_workers=65, which is 1 to 64"),
        (SourcePolicy, {"lost": "snapshot", "create": False}, "makes a new slot, which create=False forbids"),
        (DeliveryPolicy, {"poison": "snapshot"}, "poison='snapshot', which is 'stop' or 'skip'"),
        (DeliveryPolicy, {"poison": "skip"}, "needs a quarantine"),
    ],
)
def test_options_that_contradict_each_other_are_refused(policy: Any, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        policy(**options)
    assert problem in str(caught.value)


def test_options_that_go_together() -> None:
    assert not SourcePolicy(tables=("orders",)).takes_snapshots
    assert SourcePolicy(snapshot=True, create=False, keys_change=False).takes_snapshots
    assert SourcePolicy(lost="snapshot", snapshot_workers=8).takes_snapshots
    DeliveryPolicy(poison="skip", quarantine=Quarantine("refused"), streaming=True, spool_directory="spool")


def test_the_server_gives_up_a_silent_session_after_the_keepalive_unless_told_otherwise() -> None:
    assert OwnerPolicy().timeout_s == Keepalive().total_s
    assert OwnerPolicy(wal_sender_timeout_s=1.0).timeout_s == 1.0
