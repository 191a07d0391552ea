"""A replication session without a server: positions, commands, the heartbeat."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from outlast import ConfigurationError
from outlast.postgres import Postgres
from outlast.postgres.replication import Keepalive, format_lsn, parse_lsn
from outlast.postgres.replication._commands import create_slot_command, drop_slot_command, start_command
from outlast.postgres.replication._dial import _conninfo
from outlast.postgres.replication._heartbeat import Beat, Heartbeat
from outlast.postgres.replication._slots import slot_of

# Positions.


@given(st.integers(0, 2**64 - 1))
def test_a_position_survives_its_notation(lsn: int) -> None:
    assert parse_lsn(format_lsn(lsn)) == lsn


def test_a_position_looks_as_in_postgresql() -> None:
    assert format_lsn(0x16_B374D848) == "16/B374D848"
    for wrong in ("", "16", "16/", "/1", "16/B374D848/0", "G/0", "123456789/0", "-1/0"):
        with pytest.raises(ValueError, match="no position"):
            parse_lsn(wrong)
    for number in (-1, 2**64):
        with pytest.raises(ValueError, match="64 bits"):
            format_lsn(number)


# Commands.


def created(version: int, **options: Any) -> str:
    given: dict[str, Any] = {"snapshot": "export", "failover": False, "two_phase": False, "temporary": False, **options}
    return create_slot_command(version, "shop", "pgoutput", **given).as_string()


def test_a_slot_is_created_in_the_words_of_each_version() -> None:
    assert created(140000) == 'CREATE_REPLICATION_SLOT "shop" LOGICAL "pgoutput" EXPORT_SNAPSHOT'
    assert created(150000, snapshot="nothing") == 'CREATE_REPLICATION_SLOT "shop" LOGICAL "pgoutput" (SNAPSHOT \'nothing\')'
    assert created(180000, failover=True, two_phase=True, temporary=True) == (
        'CREATE_REPLICATION_SLOT "shop" TEMPORARY LOGICAL "pgoutput" (SNAPSHOT \'export\', TWO_PHASE true, FAILOVER true)'
    )
    with pytest.raises(ConfigurationError, match="need PostgreSQL 17, this is 16"):
        created(160004, failover=True)


def test_options_of_the_plugin_are_quoted() -> None:
    command = start_command("shop", 0x1_00000001, {"publication_names": "it's", 'a"b': "1"})
    assert command.as_string() == ('START_REPLICATION SLOT "shop" LOGICAL 1/1 ("publication_names" \'it\'\'s\', "a""b" \'1\')')
    assert drop_slot_command("shop", wait=True).as_string() == 'DROP_REPLICATION_SLOT "shop" WAIT'
    for wrong in ("", "Shop", "a-b", "x" * 64, 'a"'):
        with pytest.raises(ConfigurationError, match="no name for a slot"):
            start_command(wrong, 0, {})


def test_the_state_of_a_slot_is_read_from_any_version() -> None:
    old = slot_of({"slot_name": "shop", "restart_lsn": "0/10", "confirmed_flush_lsn": None, "wal_status": "reserved"})
    assert (old.restart_lsn, old.confirmed_lsn, old.failover, old.is_lost) == (16, None, False, False)
    assert slot_of({"slot_name": "shop", "wal_status": "lost"}).is_lost
    assert slot_of({"slot_name": "shop", "invalidation_reason": "idle_timeout"}).is_lost
    assert slot_of({"slot_name": "shop", "conflicting": True}).invalidation == "conflict"
    assert slot_of({"slot_name": "shop"}).wal_status == "reserved", "one that is being made has none yet"
    read = slot_of({"slot_name": "shop", "active_pid": 7, "backend_start": "2026-11-29T21:42:21.5+01:00", "inactive_s": None})
    assert str(read.holder) == "pid 7 (no application name, since 2026-11-29T21:42:21+01:00)"


# How it is dialled.


def test_the_settings_of_the_dsn_win_over_ours() -> None:
    dsn = "postgresql://localhost/shop?application_name=mine&keepalives_idle=7&options=-c%20wal_sender_timeout%3D9000"
    text = _conninfo(
        Postgres(dsn), "outlast changes", Keepalive(2, 1, 3), {"wal_sender_timeout": "6000"}, {"replication": "database"}
    )
    parsed = conninfo_to_dict(text)
    assert parsed["application_name"] == "mine"
    assert (parsed["keepalives_idle"], parsed["keepalives_interval"], parsed["tcp_user_timeout"]) == ("7", "1", "5000")
    assert parsed["replication"] == "database"
    settings = str(parsed["options"]).split()
    assert "tcp_keepalives_idle=2" in settings
    # The server takes the last one.
    assert [text for text in settings if text.startswith("wal_")] == ["wal_sender_timeout=6000", "wal_sender_timeout=9000"]
    # On Linux it would end a session whose consumer is slow.
    assert "tcp_user_timeout" not in str(parsed["options"])


def test_keepalives_are_whole_and_positive() -> None:
    assert Keepalive().total_s == 4
    with pytest.raises(ConfigurationError, match="interval_s must be at least 1"):
        Keepalive(interval_s=0)


# The heartbeat.


def test_a_quiet_server_is_asked_and_given_up_when_it_does_not_answer() -> None:
    heart = Heartbeat(6.0, 0.0)
    assert heart.due(2.9) is None
    assert heart.due(3.0) is Beat.ASK
    heart.told(3.0, asked=True)
    assert heart.due(5.9) is None
    assert heart.next_at() == 6.0
    assert heart.due(6.0) is Beat.DEAD
    heart.heard(6.0)
    assert heart.due(6.0) is Beat.TELL


def test_who_was_away_asks_before_it_judges() -> None:
    heart = Heartbeat(6.0, 0.0)
    assert heart.due(100.0) is Beat.ASK
    heart.told(100.0, asked=True)
    assert heart.due(102.9) is None
    assert heart.due(103.0) is Beat.DEAD


def test_who_does_not_read_judges_nobody_and_speaks_all_the_same() -> None:
    heart = Heartbeat(6.0, 0.0)
    heart.pause()
    for now in (3.0, 6.0, 9.0, 600.0):
        assert heart.due(now) is Beat.TELL
        heart.told(now)
    heart.resume(601.0)
    assert heart.due(602.0) is None
    assert heart.due(604.0) is Beat.ASK


@given(st.lists(st.tuples(st.sampled_from(["heard", "pause", "resume", "beat"]), st.floats(0.0, 2.0)), max_size=60))
def test_it_is_never_silent_for_longer_than_the_schedule_and_judges_only_who_was_asked(steps: list[tuple[str, float]]) -> None:
    heart, now, told_at, asked, reading = Heartbeat(6.0, 0.0), 0.0, 0.0, False, True
    for what, after_s in steps:
        target = now + after_s
        # The timer of the loop: on time, whatever else happens.
        while (at := heart.next_at()) <= target:
            now = max(now, at)
            match heart.due(now):
                case Beat.DEAD:
                    assert asked
                    assert reading
                    return
                case Beat.ASK | Beat.TELL as beat:
                    assert now - told_at <= 3.0 + 1e-9
                    heart.told(now, asked=beat is Beat.ASK)
                    asked = asked or beat is Beat.ASK
                    told_at = now
                case None:
                    pytest.fail("next_at() named a time at which nothing is due")
        now = target
        match what:
            case "heard" if reading:
                heart.heard(now)
                asked = False
            case "pause":
                heart.pause()
                reading, asked = False, False
            case "resume" if not reading:
                heart.resume(now)
                reading, asked = True, False
            case _:
                pass


def test_a_timeout_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 0"):
        Heartbeat(0.0, 0.0)
