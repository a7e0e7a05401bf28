"""Build the noun table of the embedded model ``lite`` (``pam_plugins/models/lite/data/nouns.json``).

The table turns the 1000 ImageNet-1k classes, the 80 COCO classes and the "stuff" of
``networks/stuff_head.py`` (sky, grass ...) into WordNet 3.0 noun synsets with everyday English and
Chinese names, short definitions and hypernyms. Inputs:

* ``data.noun`` of WordNet 3.0 (Debian package ``wordnet-base``);
* ``imagenet_synsets.txt``: the 1000 WordNet ids in class order (shipped inside the ``timm`` wheel; the
  wheel itself may be given);
* ``lite_names.tsv`` beside this file: English name, Chinese name and level (``general``, ``broad``, ``basic`` or
  nothing: see ``Noun.level``), by hand;
* optionally a JSON list of 1000 plain labels in class order (shipped inside the ``gradio`` wheel),
  to cross-check that order.

Usage::

    python tools/build_lite_nouns.py --wordnet DIR/data.noun --synsets timm-VERSION.whl \
        [--labels gradio-VERSION.whl] [--check]
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
NAMES = Path(__file__).resolve().with_name("lite_names.tsv")
OUT = ROOT / "pam_plugins" / "models" / "lite" / "data" / "nouns.json"

# COCO-80 in the usual order.
COCO = """person:n00007846 bicycle:n02834778 car:n02958343 motorcycle:n03790512 airplane:n02691156
bus:n02924116 train:n04468005 truck:n04490091 boat:n02858304 traffic_light:n06874185
fire_hydrant:n03346898 stop_sign:n06794110 parking_meter:n03891332 bench:n02828884 bird:n01503061
cat:n02121620 dog:n02084071 horse:n02374451 sheep:n02411705 cow:n02402425 elephant:n02503517
bear:n02131653 zebra:n02391049 giraffe:n02439033 backpack:n02769748 umbrella:n04507155
handbag:n02774152 tie:n03815615 suitcase:n02773838 frisbee:n03397947 skis:n04228054
snowboard:n04251791 sports_ball:n02778669 kite:n03621473 baseball_bat:n02799175
baseball_glove:n02800213 skateboard:n04225987 surfboard:n04363559 tennis_racket:n04409806
bottle:n02876657 wine_glass:n04592099 cup:n03147509 fork:n03383948 knife:n03623556 spoon:n04284002
bowl:n02880940 banana:n07753592 apple:n07739125 sandwich:n07695965 orange:n07747607
broccoli:n07714990 carrot:n07730207 hot_dog:n07697537 pizza:n07873807 donut:n07639069 cake:n07628870
chair:n03001627 couch:n04256520 potted_plant:n11536230 bed:n02818832 dining_table:n03201208
toilet:n04446521 tv:n04405907 laptop:n03642806 mouse:n03793489 remote:n04074963 keyboard:n03085013
cell_phone:n02992529 microwave:n03761084 oven:n03862676 toaster:n04442312 sink:n04223580
refrigerator:n04070727 book:n02870092 clock:n03046257 vase:n04522168 scissors:n04148054
teddy_bear:n04399382 hair_drier:n03483316 toothbrush:n04453156"""

STUFF = """building:n02913152 floor:n03365592 flower:n11669921 grass:n12102133 ground:n09334396
mountain:n09359803 plant:n00017222 road:n04096066 rock:n09416076 sky:n09436708 tree:n13104059
wall:n04546855 water:n14845743"""

LEVELS = ("", "basic", "broad", "general")

# ImageNet classes whose pictures show another WordNet sense than the one their id names.
MOVED = {
    345: "n02402425",  # ox: the class shows cows
    501: "n03045337",  # cloak: the garment, not whatever covers or conceals
    544: "n03259401",  # Dutch oven: the cast-iron pot, not the metal box before a fire
    599: "n09218315",  # honeycomb: the bees', not the framework that resembles it
    664: "n03782190",  # monitor: the display
    718: "n03933529",  # pier: the landing, not the support of a bridge span
    723: "n03944138",  # pinwheel: the toy, not the machine part
    748: "n02774152",  # purse: the handbag
    753: "n04041069",  # radiator: the one that heats a room
    754: "n04043733",  # radio: the receiver, not the communication system
    815: "n04275363",  # spider web: the spiders' own, not what resembles it
    851: "n04405907",  # television: the set, not the telecommunication system
    896: "n04553920",  # washbasin: the plumbed-in one
    922: "n06492939",  # menu: the card, not the dishes
    968: "n03147509",  # cup: the vessel, not the punch
    984: "n11879722",  # rapeseed: the plant in bloom, not the seed
    987: "n07731952",  # corn: the ears as food
}

# Hypernyms that mislead a reader, replaced.
HYPERNYMS = {
    "n01560419": ["n01525720"],  # bulbul: songbird (WordNet: the poets' nightingale)
    "n01749939": ["n01749582"],  # green mamba: mamba (WordNet: black mamba)
    "n01871265": ["n02503517"],  # tusker: the class shows elephants
    "n01882714": ["n01874434"],  # koala: marsupial (WordNet: possum)
    "n02117135": ["n02075296"],  # hyena: carnivore (WordNet: canine)
    "n02510455": ["n02131653"],  # giant panda: bear (WordNet: procyonid)
    "n02774152": ["n02773037"],  # handbag: bag (WordNet: container only)
    "n02825657": ["n04341686"],  # bell cote: structure (WordNet: protective covering)
    "n02843684": ["n04191595"],  # birdhouse: the shelter that is a structure
    "n03063689": ["n04531098"],  # coffeepot: vessel (WordNet: cooking pot)
    "n03065424": ["n00021939"],  # coil: artifact (WordNet: structure)
    "n03201208": ["n04379243"],  # dining table: the furniture, not the laid table
    "n03391770": ["n00021939"],  # framework: artifact (WordNet: structure)
    "n03529860": ["n03278248"],  # home theater: electronic equipment (WordNet: theater building)
    "n03633091": ["n03621049"],  # ladle: kitchen utensil (WordNet: vessel)
    "n03710637": ["n04371563"],  # maillot: the class shows swimsuits, not tights
    "n04019541": ["n03208556", "n04285146"],  # puck: sports equipment too
    "n04023962": ["n04285146"],  # punching bag: sports equipment (WordNet: ball)
    "n04049303": ["n02795169"],  # rain barrel: barrel (WordNet: cistern)
    "n04074963": ["n03277771"],  # remote control: electronic device
    "n04125853": ["n04081844"],  # safety belt: restraint (WordNet: clothing accessory too)
    "n04228054": ["n04285146"],  # ski: sports equipment (WordNet: runner)
    "n04251791": ["n02856463", "n04285146"],  # snowboard: sports equipment too
    "n04284002": ["n03153375"],  # spoon: cutlery (WordNet: also container)
    "n04355933": ["n04272054"],  # sunglass: the class shows sunglasses, not a burning glass
    "n04363559": ["n02856463", "n04285146"],  # surfboard: sports equipment too
    "n04398044": ["n04531098"],  # teapot: vessel (WordNet: cooking pot)
    "n04562935": ["n04460130"],  # water tower: tower (WordNet: reservoir)
    "n04576211": ["n04524313"],  # wheeled vehicle: vehicle (WordNet: also container)
    "n09436708": ["n00019128"],  # sky: natural object (WordNet: a gas)
    "n14845743": ["n14940386"],  # water: liquid (WordNet: binary compound too)
    "n06359193": ["n00033020"],  # website: communication (WordNet: computer)
    "n07730033": ["n07707451", "n11669921"],  # cardoon: the class shows its flowers
    "n12057211": ["n12056217", "n11669921"],  # yellow lady's slipper: the class shows its flowers
    "n07871810": ["n07557434"],  # meat loaf: dish (WordNet: also bread)
    "n09218315": ["n00019128"],  # honeycomb: natural object (WordNet: structure)
    "n04238763": ["n02938886"],  # slide rule: calculator (WordNet: analog computer)
}

# Definitions written for this table, where WordNet's does not fit what the class shows.
GLOSSES = {
    "n01514668": "an adult male chicken",
    "n01514859": "an adult female chicken",
    "n01560419": "a noisy songbird of Africa and southern Asia, often with a crest",
    "n01749939": "a slender, highly venomous green tree snake of Africa",
    "n01871265": "an elephant with long tusks",
    "n02106166": "a sheepdog, usually black and white, from the border of Scotland and England",
    "n02402425": "a domesticated bovine animal of either sex and any age",
    "n02503517": "a very large grey mammal with a trunk and tusks",
    "n02607072": "a small brightly striped fish that lives among sea anemones",
    "n02676566": "a guitar whose sound is not amplified by electrical means",
    "n02834397": "a piece of cloth tied under the chin to keep the clothes clean",
    "n02840245": "a cover with rings that hold loose sheets of paper",
    "n02950826": "a large heavy gun, often on wheels",
    "n03126707": "a machine that lifts and moves heavy objects",
    "n03710637": "a tight-fitting one-piece swimsuit",
    "n04070727": "a kitchen appliance in which food is kept cold",
    "n04238763": "a ruler with a sliding middle part, used for rapid calculations",
    "n04330267": "an apparatus for heating or cooking",
    "n04355933": "spectacles with dark lenses that protect the eyes from the sun",
    "n09416076": "a lump or mass of hard mineral matter",
    "n09436708": "what is seen above the earth when looking up outdoors",
    "n14845743": "the clear liquid that falls as rain and fills rivers, lakes and seas",
    "n06359193": "a set of linked pages on the World Wide Web",
    "n07590611": "a dish of meat and vegetables cooked in a pot of simmering broth",
    "n07730033": "a thistlelike plant whose roots and stalks are eaten",
    "n07730207": "a long, usually orange root eaten as a vegetable",
}

# Slang and misleading synonyms that no label should carry.
DROPPED = {
    "crapper",
    "can",
    "john",
    "boob tube",
    "idiot box",
    "goggle box",
    "rape",
    "wood pussy",
    "black Maria",
    "paddy wagon",
    "one-armed bandit",
    "soul",
    "mortal",
    "someone",
    "somebody",
}
DROP_FROM = {"n04446521", "n04405907", "n11879722", "n02445715", "n03977966", "n04243546", "n00007846"}


class Synset(NamedTuple):
    lemmas: list[str]
    hypernyms: list[str]
    gloss: str


def read_member(path: Path, member: str) -> str:
    """Text of `path`, or of the member with that file name when `path` is a wheel or zip."""
    if path.suffix not in (".whl", ".zip"):
        return path.read_text(encoding="utf-8")
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.rsplit("/", 1)[-1] == member)
        return archive.read(name).decode("utf-8")


def clean_gloss(gloss: str) -> str:
    """The definition alone: no examples, no leading domain mark, cut at the first top-level semicolon.

    A first part of under 20 characters ("tall hat") takes the next part along.
    """
    gloss = re.sub(r'[;:,]?\s*"[^"]*"?.*$', "", gloss.strip()) if gloss.count('"') > 1 else gloss.strip()
    gloss = re.sub(r"^\([^)]*\)\s*", "", gloss).replace("`", "'")
    depth = 0
    for at, char in enumerate(gloss):
        depth += (char == "(") - (char == ")")
        if depth <= 0 and at >= 20 and gloss.startswith("; ", at):
            gloss = gloss[:at]
            gloss = gloss[: colon if (colon := gloss.find(": ")) >= 20 else None]  # A list cut short.
            break
    return re.sub(r"\s+", " ", gloss).strip(" ;:,").removesuffix(", including")


def read_wordnet(path: Path) -> tuple[dict[str, Synset], str]:
    """All noun synsets of a WordNet ``data.noun``, and the licence notice at its head."""
    synsets: dict[str, Synset] = {}
    notice: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):
            notice.append(re.sub(r"^\s*\d+ ?", "", line).rstrip())
            continue
        head, gloss = line.split(" | ", 1)
        field = head.split()
        count = int(field[3], 16)
        lemmas = [field[4 + 2 * i].replace("_", " ") for i in range(count)]
        start = 4 + 2 * count
        pointers = [field[start + 1 + 4 * i : start + 5 + 4 * i] for i in range(int(field[start]))]
        up = ["n" + p[1] for p in pointers if p[0] in ("@", "@i") and p[2] == "n"]
        synsets["n" + field[0]] = Synset(lemmas, up, clean_gloss(gloss))
    return synsets, " ".join(part for part in notice if part)


def read_names(path: Path) -> dict[str, tuple[str, str, str]]:
    """The hand-made table: synset -> (English name or "", Chinese name or "", level)."""
    table: dict[str, tuple[str, str, str]] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
            if row["synset"] in table:
                raise SystemExit(f"{path.name}: {row['synset']} is listed twice")
            if row["level"] not in LEVELS:
                raise SystemExit(f"{path.name}: {row['synset']}: bad level {row['level']!r}")
            table[row["synset"]] = (row["en"], row["zh"], row["level"])
    return table


def closure(ids: Iterable[str], hypernyms: dict[str, list[str]]) -> list[str]:
    """`ids` and everything above them, sorted."""
    seen: set[str] = set()
    todo = list(ids)
    while todo:
        one = todo.pop()
        if one not in seen:
            seen.add(one)
            todo += hypernyms[one]
    return sorted(seen)


def cross_check(labels: list[str], wnids: list[str], wordnet: dict[str, Synset]) -> None:
    """Fail unless the plain labels and the lemmas of the same index share a word nearly everywhere."""

    def words(texts: Iterable[str]) -> set[str]:
        return {w.rstrip("s") for text in texts for w in re.findall(r"[a-z]+", text.lower())}

    apart = [i for i in range(1000) if not words([labels[i]]) & words(wordnet[wnids[i]].lemmas)]
    print(f"order check: {1000 - len(apart)} of 1000 labels share a word with their synset")
    if len(apart) > 100:
        raise SystemExit(f"class order looks wrong; first differences: {apart[:10]}")


def build(wordnet_path: Path, synsets_path: Path, labels_path: Path | None) -> str:
    wordnet, notice = read_wordnet(wordnet_path)
    names = read_names(NAMES)
    wnids = read_member(synsets_path, "imagenet_synsets.txt").split()
    if len(set(wnids)) != 1000 or any(w not in wordnet for w in wnids):
        raise SystemExit("expected 1000 distinct WordNet 3.0 ids")
    if labels_path:
        cross_check(json.loads(read_member(labels_path, "imagenet_labels.json")), wnids, wordnet)
    imagenet = [MOVED.get(index, wnid) for index, wnid in enumerate(wnids)]
    pairs = [entry.split(":") for entry in COCO.split()]
    coco = [synset for _, synset in pairs]
    stuff = [entry.split(":")[1] for entry in STUFF.split()]
    if len(set(imagenet)) != 1000 or len(set(coco)) != 80:
        raise SystemExit("class synsets are not distinct")

    hypernyms = {synset: HYPERNYMS.get(synset, entry.hypernyms) for synset, entry in wordnet.items()}
    ids = closure(imagenet + coco + stuff, hypernyms)
    if missing := [f"{s} {wordnet[s].lemmas[0]}" for s in ids if s not in names]:
        raise SystemExit(f"{NAMES.name} lacks: " + ", ".join(missing))
    if unused := sorted(set(names) - set(ids)):
        raise SystemExit(f"{NAMES.name} has rows that nothing uses: " + ", ".join(unused))

    table = {}
    for synset in ids:
        english, chinese, level = names[synset]
        lemmas = wordnet[synset].lemmas
        if synset in DROP_FROM:
            lemmas = [lemma for lemma in lemmas if lemma not in DROPPED]
        if not chinese and level != "general":
            raise SystemExit(f"{synset} {lemmas[0]} is shown but has no Chinese name")
        table[synset] = {
            "name": english or lemmas[0],
            "zh": chinese,
            "lemmas": lemmas,
            "gloss": GLOSSES.get(synset, wordnet[synset].gloss),
            "hypernyms": hypernyms[synset],
            "level": level,
        }
    source = {
        "wordnet": "WordNet 3.0 noun synsets, with the changes listed here",
        "notice": notice,
        "imagenet": "ImageNet-1k class order",
        "moved": {str(i): [wnids[i], synset] for i, synset in sorted(MOVED.items())},
        "hypernyms_replaced": sorted(set(HYPERNYMS) & set(ids)),
        "glosses_replaced": sorted(set(GLOSSES) & set(ids)),
        "names": "English and Chinese names: tools/lite_names.tsv",
    }
    data = {
        "version": 1,
        "source": source,
        "imagenet": imagenet,
        "coco": coco,
        "coco_names": [name.replace("_", " ") for name, _ in pairs],
        "synsets": table,
    }
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build the noun table of the embedded model lite.")
    parser.add_argument("--wordnet", type=Path, required=True, help="WordNet 3.0 data.noun")
    parser.add_argument("--synsets", type=Path, required=True, help="imagenet_synsets.txt or a timm wheel")
    parser.add_argument("--labels", type=Path, help="JSON list of 1000 labels, or a gradio wheel")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--check", action="store_true", help="only say whether --out is up to date")
    args = parser.parse_args(argv)
    text = build(args.wordnet, args.synsets, args.labels)
    if args.check:
        same = args.out.exists() and args.out.read_text(encoding="utf-8") == text
        print(f"{args.out.name} is {'up to date' if same else 'out of date'}")
        return 0 if same else 1
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text, encoding="utf-8")
    print(f"wrote {args.out.name}: {len(text.encode())} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
