"""What 1,000 characters of any text cost at most: sentences, candidates, tokens and seconds, text by text.

    python bench/hostile_texts.py [--chars 2000] [--only NAME,NAME] [--kind prose|log] [--ensemble NAME] [--json OUT]
    python bench/hostile_texts.py --count

`--count` runs no model: it counts what is proposed, and the bound of a token for each byte. Otherwise each text is
tagged once, and the tokens are those that the members read. Compare seconds within one run: `prose` is the yardstick.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import time
from pathlib import Path
from typing import Any

from el4ner.stages.slices import size_of
from el4ner.text.chunks import chunks
from el4ner.text.proposal_limits import admitted
from el4ner.text.segment import TextKind, segment
from el4ner.types import Document, Sentence, SentenceCandidates, SpanCandidate

NAMES = ("Okafor", "Brandt", "Silva", "Tanaka", "Novak", "Ortiz", "Haddad", "Lindqvist")


def texts(chars: int) -> dict[str, str]:
    """Each of ``chars`` code points; the same every time."""
    chance = random.Random(7)

    def row(first: int, last: int) -> str:
        return "".join(chr(chance.randint(first, last)) for _ in range(chars))

    sentences = (
        f"President Maria {chance.choice(NAMES)} of {chance.choice(NAMES)} Shipping said in "
        f"{chance.choice(NAMES)}ville on day {number} that the new rules for machine learning would help. "
        for number in range(chars // 80 + 1)
    )
    units = {
        "initials": "A. B. ",
        "dots": "a.a.a.a.",
        "capitals": "THE QUICK BROWN FOX JUMPED ",
        "capital letters": "A B C D ",
        "names": "Ab of ",
        "possessives": "Ab's ",
        "names on lines": "Ab\n",
        "exclamations": "A! ",
        "common words": "machine learning ",
        "quotes": '"a" ',
        "digits": "1234567890",
        "white space": " \t",
        "one long URL": "a/b?c=",
        "colours": "\x1b[1mAb\x1b[0m ",
        "emoji": "😀👍🏽👨\u200d👩\u200d👧🇩🇪",
        "flags": "🇩🇪",
        "zalgo": "a" + "\u0301" * 20,
        "marks": "\u0301",
        "Chinese": "张伟和李娜昨天在北京大学见面，讨论了合作。上海市政府表示将支持该项目。",
        "Thai": "สมชายใจดีเดินทางไปกรุงเทพมหานคร",
        "Hindi": "नरेंद्र मोदी ने कल दिल्ली में कहा ",
        "Arabic": "وصل أحمد المنصوري إلى القاهرة مساء أمس ",
        "Korean syllables": "가 나 ",
        "katakana names": "ジョン・",
        "Tibetan": "བོད་",
    }
    made = {
        "prose": "".join(sentences),
        "base64": base64.b64encode(chance.randbytes(chars)).decode(),
        "hex": chance.randbytes(chars).hex(),
        "random Han": row(0x4E00, 0x9FA5),
        "random Thai": row(0x0E01, 0x0E2E),
        **{name: unit * (chars // len(unit) + 1) for name, unit in units.items()},
    }
    made["one long URL"] = f"https://example.org/{made['one long URL']}"
    return {name: text[:chars] for name, text in made.items()}


def counted(text: str, kind: TextKind) -> dict[str, float]:
    """Per 1,000 characters, without a model."""
    thousands = len(text) / 1000
    asked = []
    for sentence in segment(text, kind):
        spans = admitted(sentence.text, [chunk.span for chunk in chunks(sentence.text, kind)])
        own = Sentence(0, len(sentence.text), sentence.text)
        asked.append(SentenceCandidates(own, (), tuple(SpanCandidate(span, ()) for span in sorted(spans))))
    return {
        "sentences": len(asked) / thousands,
        "candidates": sum(len(item.candidates) for item in asked) / thousands,
        "most_tokens": sum(map(size_of, asked)) / thousands,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chars", type=int, default=2000)
    parser.add_argument("--only", default="")
    parser.add_argument("--kind", choices=("prose", "log"), default="prose")
    parser.add_argument("--ensemble", default="default")
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    wanted = {name.strip() for name in options.only.split(",") if name.strip()}
    chosen = {name: text for name, text in texts(options.chars).items() if not wanted or name in wanted}
    if unknown := wanted - chosen.keys():
        parser.error(f"there is no text {', '.join(sorted(unknown))}; there are: {', '.join(texts(1))}")
    tagger = None
    if not options.count:
        from el4ner.tagger import Tagger

        pool = "news" if options.kind == "prose" else "logs"
        overrides = {
            "ensemble": {"preset": options.ensemble},
            "pools": {"default": pool, "paths": {pool: f"shipped:{pool}"}},
            "method": {"max_spans": 1_000_000, "max_sentences": 1_000_000, "repeats": "off"},
        }
        tagger = Tagger.from_config(overrides=overrides)
        tagger.pipeline.classify(tagger.pipeline.extract([Document("warm", "Ada Lovelace lived in London.")]))
    results: dict[str, dict[str, Any]] = {}
    for name, text in chosen.items():
        figures: dict[str, Any] = counted(text, options.kind)
        if tagger is not None:
            thousands = len(text) / 1000
            began = time.perf_counter()
            (typed,) = tagger.pipeline.classify(tagger.pipeline.extract([Document(name, text)]))
            figures["seconds"] = (time.perf_counter() - began) / thousands
            figures["tokens"] = (typed.usage.prompt_tokens - typed.usage.cached_tokens) / thousands
        results[name] = figures
        print(f"{name:18}" + "".join(f"  {key} {value:9,.1f}" for key, value in figures.items()), flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if tagger is not None:
        tagger.close()


if __name__ == "__main__":
    main()
