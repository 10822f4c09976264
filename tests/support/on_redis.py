"""Clients and apps on a Redis, a Redis Cluster and a Redis behind Sentinel."""

from __future__ import annotations

from typing import Any

from flask import Flask, session
from redis.cluster import RedisCluster
from redis.sentinel import Sentinel

from lazysession import LazySession


def cluster_client(url: str) -> RedisCluster:
    return RedisCluster.from_url(url.replace("+cluster", "").split(",")[0])


def sentinel_client(url: str) -> Any:
    nodes, _, service = url.partition("://")[2].partition("/")
    return Sentinel([(node.split(":")[0], int(node.split(":")[1])) for node in nodes.split(",")]).master_for(service)


def make_app(value: object, extension: type = LazySession, **settings: Any) -> Flask:
    """Make an app that counts in its sessions; errors are responses."""
    app = Flask("shop")
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=value, LAZYSESSION_RULES=[("/skipped", "skip")], **settings)
    extension(app)
    app.logger.setLevel("CRITICAL")

    @app.get("/count/<key>")
    def count(key: str) -> str:
        session[key] = session.get(key, 0) + 1
        return str(session[key])

    @app.get("/first")
    def first() -> str:
        session["first"] = True
        return ""

    app.add_url_rule("/untouched", view_func=lambda: "", endpoint="untouched")
    app.add_url_rule("/skipped", view_func=lambda: str(session.get("a")), endpoint="skipped")
    return app
