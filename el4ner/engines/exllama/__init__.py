"""Models quantised for ExLlama on a GPU: one driver (:mod:`.engine`) over two libraries (:mod:`.v2`, :mod:`.v3`)."""
