"""The tagger as an HTTP service: ``el4ner serve``. Needs el4ner[serve], no Kafka, and Redis only for what is shared.

service         the process: start, readiness, a bounded end
front           for all paths: who may ask, ids, logs
http_app        the paths and their answers (Starlette)
tag_requests    from a body to documents with their options
text_queue      what is accepted and not answered yet: bounded, in batches that requests share
pipeline_calls  a batch on the pipeline's thread, isolated
tag_answers     from results to JSON
openapi         the service's own description

Connections and problems are in :mod:`workers.http`.
"""
