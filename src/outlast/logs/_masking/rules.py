r"""The patterns that decide which parts of a line are masked. They are matched against a blanked digit shape, never a record.

In a shape every digit is `0` and a hex run is a row of `\x1a`, so no pattern can look at a digit's value. The name of the
group that matched says what happens: `k_` keeps everything, `p_` keeps the group and masks what else was matched, `m_` masks
all of it, `a_` is the address of a machine, `url` looks closer. Words are matched whole, the plain ones in one go, so that
the cost is by the word and not by the character; every repetition has a bound, so that junk costs linear time.
"""

from __future__ import annotations

import re
from typing import Final

from outlast.logs._masking import words

NAME: Final = "[0A-Za-z_.@%+~:,=$-]"
WORD: Final = "[A-Za-z_$][A-Za-z_$.-]{0,200}+"
QUOTE: Final = r"(?:\\?[\"'])?"
QUOTED: Final = r"(?:\"(?:[^\"\\\n]|\\[^\n]){0,512}+\"|'(?:[^'\\\n]|\\[^\n]){0,512}+'|\\\"[^\"\\\n]{0,512}+\\\")"
PREFIX: Final = "(?:[A-Za-z]{1,64}[-_.]){0,4}?"
BETWEEN: Final = (
    r"(?:\\?[\"'\])]){0,3}[ \t]{0,3}(?:[:=#]|[-=]>)?[ \t]{0,3}"
    rf"(?:(?:{words.FILLERS})\.?[ \t]{{1,2}}){{0,2}}(?:\\?[\"'\[({{<]){{0,3}}"
)
CODE: Final = r"(?:-?0x[0A-Fa-f]{1,8}|-?0{1,6}(?:\.0{1,3}){0,2}|[0A-Z]{5})(?:\]? \[0{1,5}\])?(?![0A-Za-z_]|[.:]0)"
WEAK_CODE: Final = r"(?:0{3}(?![0A-Za-z_]|[.:]0| of\b| (?!status\b)[a-z]{3,30}s\b)|-?0{1,6}(?![0A-Za-z_]|[.:]0| [a-z]))"
ZONE: Final = r"(?: ?(?:Z|UTC|GMT|[+-]00:?(?:00)?))"
CLOCK: Final = r"00:00:00(?:[.,]0{1,9}+)?"


def _ends_with(endings: tuple[str, ...]) -> str:
    return "(?i:" + "|".join(f"(?<={ending})" for ending in endings) + ")"


LETTER_RULES: Final = (
    # Words that another word follows, or nothing, with nothing to decide: the most frequent case by far. Before a colon that may
    # be the end of `request_id`, what follows has to be looked at.
    (
        rf"(?P<plain>(?:(?!type |to f)[A-Za-z_$]{{1,64}}+(?:[,;]|(?<![dD]):)? (?=[A-Za-z])"
        rf"(?!(?:{words.FILLERS}|to float|type)\b|(?:{words.MONTHS}) ))++(?:[A-Za-z_$]{{1,64}}+\Z)?|[A-Za-z_$]{{1,64}}+\Z)"
    ),
    # What says which one: fields of identity, data in quotes, the row of a unique key, the local part of an e-mail address.
    (
        rf"(?P<p_id>(?=[A-Za-z_$.-]{{0,200}}+(?<=[dD]){QUOTE} ?[:=])(?i:{PREFIX}(?:{words.IDENTIFIED})[-_.]?id)"
        rf"{QUOTE} ?[:=] ?{QUOTE})"
        r"[^\s\"'\\,}&;)\]]{1,256}+"
    ),
    rf"(?P<p_value>(?i:{PREFIX}(?:{words.VALUE_WORDS}))(?:{QUOTE} {{0,2}}[:=] {{0,2}}| {{1,2}})){QUOTED}",
    r"(?P<p_row>Key \([^()\n]{1,256}\)=)\([^()\n]{0,512}\)",
    r"(?P<m_local>[0A-Za-z_.%+-]{1,64}+(?=@[0A-Za-z_-]{1,63}\.))",
    # Moments that begin with a letter.
    r"(?P<p_klog>[IWEF])0{4} 00:00:00\.0{1,9}",
    (
        rf"(?P<m_day>(?:(?:{words.DAYS}),? )?(?:(?:{words.MONTHS}) {{1,2}}00? {CLOCK}(?: 0{{4}})?"
        rf"|00? (?:{words.MONTHS}) 0{{4}} {CLOCK}(?: GMT| [+-]0{{4}})?)(?![0A-Za-z_]))"
    ),
    # Codes stay.
    r"(?P<k_proto>HTTP/0(?:\.0)?\"? 0{1,5}(?![0A-Za-z_]))",
    (
        rf"(?P<k_port>(?=[A-Za-z_$.-]{{4,200}}+(?<=[tT]))(?<!client )(?<!source )"
        rf"(?!(?i:{words.CLIENT_PORTS})[-_.]?(?i:port))(?:(?i:{PREFIX}port)|[a-z]{{1,64}}Port)"
        rf"(?i:{BETWEEN})0{{1,5}}(?![0A-Za-z_]|[.:]0))"
    ),
    rf"(?P<k_code>(?:os )?{WORD}(?=.{{0,4}}(?:[0A-Z]|(?:{words.FILLERS})\b)){_ends_with(words.CODE_WORDS)}(?i:{BETWEEN}){CODE})",
    rf"(?P<k_weak>{WORD}(?=.{{0,4}}(?:0|(?:{words.FILLERS})\b)){_ends_with(words.WEAK_CODE_WORDS)}(?i:{BETWEEN}){WEAK_CODE})",
    r"(?P<k_error>(?i:error)(?:=|\\?\"[:=] ?)-?0{1,5}(?![0A-Za-z_]|[.:]0))",
    rf"(?P<k_level>(?:{words.LEVELS}) ?[: #\[(-] ?[ (\[]{{0,2}}-?0{{1,5}}(?= {{0,2}}(?:[\]):;,\"'(]|\.(?!0)|from\b|\r?$)))",
    # URLs and requests: names stay, whole numbers in the path and in the query do not.
    rf"(?P<url>(?:[a-z][a-z+.-]{{1,20}}+://|(?:{words.METHODS}) /)[^\s\"'<>\x1a]{{0,1024}}+)",
    # Names stay: paths, hosts with their port, a source file with its line, tables, versions.
    rf"(?P<k_path>[A-Za-z_$][0A-Za-z_.$-]{{0,128}}+(?:/{NAME}{{1,128}}+){{1,64}}+)",
    r"(?P<k_drive>[A-Za-z]:\\[^\s\"']{1,512}+)",
    rf"(?P<p_pooled>(?i:{words.POOLED})[-_#])0{{1,20}}+(?![A-Za-z_.])",
    (
        rf"(?P<k_host>(?!(?:{words.COUNTED}):)[A-Za-z_$][0A-Za-z_.$-]{{0,128}}+:(?<![-_.]port:)(?:0{{4,5}}+"
        r"|(?:(?<=\.[a-z]:)|(?<=[.-][a-z]{2}:)|(?<=[.-][a-z]{3}:)|(?<=[.-][a-z]{4}:)|(?<=localhost:)|(?<=0:))0{1,5}+)(?![0A-Za-z_]|\.0))"
    ),
    # What is numbered in one row, as orders are: `A-1234567`. Codes of this form have fewer digits: `ORA-12541`, `MY-010055`.
    rf"(?P<p_numbered>{WORD}(?<=-))0{{7,64}}+(?![0A-Za-z_])",
    r"(?P<m_mac_named>[A-Fa-f][0A-Fa-f](?::[0A-Fa-f]{2}){5}(?![0A-Za-z_:]))",
    r"(?P<a_ip6_named>(?=[A-Fa-f:]{0,39}0)(?:[0A-Fa-f]{1,4}:){1,7}(?::|[0A-Fa-f]{1,4})(?::?[0A-Fa-f]{1,4}){0,6}(?![0A-Za-z_:]))",
    r"(?P<k_name>[A-Za-z_$][A-Za-z_$.-]{0,128}+0[0A-Za-z_$.-]{0,128}+)",
    rf"(?P<plain_last>{WORD})",
)

DIGIT_RULES: Final = (
    (
        rf"(?P<m_stamp>(?:0{{4}}[-/.]00[-/.]00(?:[T ]00:00(?::00(?:[.,]0{{1,9}}+)?)?{ZONE}?)?"
        rf"|00?[ /.-](?:00|{words.MONTHS})[ /.-]0{{4}}(?:[: ]{CLOCK}(?: (?:[+-]0{{4}}|GMT|UTC))?)?"
        rf"|0?{CLOCK[1:]}{ZONE}?)(?![0A-Za-z_]))"
    ),
    rf"(?P<k_reason>0{{3}}(?= (?:{words.REASONS})))",
    r"(?P<a_ip>0{1,3}(?:\.0{1,3}){3}(?:(?:[:/]|,? port )0{1,5}+)?(?![0A-Za-z_]|\.0))",
    rf"(?P<m_long>(?:0{{1,20}}+(?:\.0{{1,20}}+)?(?:{words.DURATIONS})){{1,6}}(?![0A-Za-z_/]))",
    rf"(?P<m_unit>0{{1,20}}+(?:[.,]0{{1,20}}+)? ?(?:{words.DURATIONS}|{words.SIZES})(?![0A-Za-z_/]))",
    r"(?P<m_mac>[0A-Fa-f]{2}(?::[0A-Fa-f]{2}){5}(?![0A-Za-z_:]))",
    r"(?P<a_ip6>(?:[0A-Fa-f]{1,4}:){1,7}(?::|[0A-Fa-f]{1,4})(?::?[0A-Fa-f]{1,4}){0,6}(?![0A-Za-z_:]))",
    r"(?P<m_hex>0x(?:[0A-Fa-f]{1,16}+|\x1a{1,64}+)(?![0A-Za-z_]))",
    r"(?P<m_power>0{1,20}+(?:\.0{1,20}+)?[eE][-+]?0{1,4}+(?![0A-Za-z_]))",
    # A SQLSTATE, a name that begins with a digit.
    r"(?P<k_digits>0{1,20}+[A-Za-z_][0A-Za-z_]{0,64}+(?:[.-][0A-Za-z_]{1,64}+){0,8}+)",
    r"(?P<m_number>0{1,64}+(?:[.,]0{1,64}+){0,8}+)",
)

OTHER_RULES: Final = (
    (
        r"(?P<m_signed>(?<![0A-Za-z_)\]\x1a])[-+]0{1,64}+(?:[.,]0{1,64}+){0,8}+(?:[eE][-+]?0{1,4}+|(?: ?(?:"
        rf"{words.DURATIONS}|{words.SIZES})))?+(?![0A-Za-z_/]))"
    ),
    rf"(?P<k_absolute>(?<![0A-Za-z_])/{NAME}{{1,128}}+(?:/{NAME}{{1,128}}+){{0,64}}+)",
    rf"(?P<k_relative>[.~]{{1,2}}(?:/{NAME}{{1,128}}+){{1,64}}+)",
    r"(?P<k_state>[(\[](?:0{5}|0x[0A-Fa-f]{8})[)\]])",
    r"(?P<m_run>\x1a{1,4096}+)",
)

RULES: Final = re.compile(
    "(?=[A-Za-z_$])(?:{})|(?=0)(?:{})|{}".format("|".join(LETTER_RULES), "|".join(DIGIT_RULES), "|".join(OTHER_RULES)).encode(
        "latin-1"
    ),
    re.MULTILINE,
)

URL_NUMBER: Final = re.compile(rb"(?<=[/=,&-])[-+]?0{1,64}+(?:\.0{1,64}+)?(?=[/?&=.,;:#)]|$)")
URL_ADDRESS: Final = re.compile(rb"(?<=[/@])0{1,3}(?:\.0{1,3}){3}(?::0{1,5}+)?")
ZEROS: Final = re.compile(rb"0(?:.*0)?", re.DOTALL)
