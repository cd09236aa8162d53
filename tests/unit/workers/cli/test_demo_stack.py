"""The demo on a broker of the user's: nothing of theirs is read, and nothing deleted."""

from __future__ import annotations

from pathlib import Path

from workers.cli.demo_stack import _own_settings
from workers.config import load_stream_settings
from workers.local.services import Services
from workers.topics import plan, wanted_topics


def test_all_topics_are_the_demos_own_where_documents_come_from_a_topic_of_the_users() -> None:
    users = load_stream_settings(
        environ={}, overrides={"kafka": {"documents_topic": "shop.public.articles", "text_path": "after.body"}}
    )
    services = Services(
        kafka_bootstrap="a:1",
        redis_url="redis://b:2",
        kafka_provider="environment",
        redis_provider="environment",
    )
    own = _own_settings(users, services, "demo-1.", Path("/nowhere"))
    assert all(planned.name.startswith("demo-1.") for planned in plan(own.kafka, wanted_topics(own)))
