"""The page: ``el4ner ui``. See the stream, try texts, look into dead letters and health. Needs el4ner[ui].

page_service      the process: what it follows, start, a bounded end
page_app          the paths and their answers (Starlette)
page_lookups      what people look up, and what they have it do
page_state        what requests are answered by
page_front        for all paths: who may ask, forged requests, headers
visitors          tokens, sessions and roles
event_stream      server-sent events to a browser
followed_topic    tagged-documents as they come, never behind, whatever happens to the broker
feed_records      what it gives, and who is told
live_feed         what is kept of them, and what each viewer is sent
live_filter       which documents a viewer wants
trend_counts      names by how often they are mentioned, in bounded memory
shown_documents, text_pieces     a document for people: its text as text, whatever is in it
letter_views      dead letters as the page shows them
followed_entities the topics of entities, and deciding what is one
held_entities     what is held of them
following_thread  the thread that follows them, and what pools are taught
entity_lookups, shown_entities   looking them up, merging and splitting; as they are shown
worker_metrics, group_lag        health: from workers' /metrics, and from the broker
lessons           teaching a pool from a document
taught_pools      what the pools were taught until now
review_queues     which sentences people should look at first
tried_texts       texts that are tried, by `el4ner serve`
static/           the page itself: HTML, CSS, modules, without a build step
"""
