"""Codebooks and their sizes, on rows where both are planted."""

from studies.codebook_search import conclude

VQ = {"method": "nowag-vq", "title": "NoWag-VQ"}


def rows(planted, *points):
    return [
        planted(str(n), kl, stored_bits_per_weight=bits, variant=f"v{n}", settings={"bits": 2, "dim": n}, **VQ)
        for n, (bits, kl) in enumerate(points)
    ]


def test_the_front_is_of_those_that_none_as_small_beats(planted):
    conclusion = conclude(rows(planted, (2.5, 0.2), (2.0, 0.4), (2.2, 0.5), (2.0, 0.45), (3.0, 0.2)))
    table = conclusion.tables["codebooks by size"]
    assert list(table["dim"]) == [1, 3, 2, 0, 4]
    assert list(table["best for its bits"]) == ["yes", "", "", "yes", ""]
    assert conclusion.sentences[0].startswith("2 of 5 codebooks are beaten by none that is as small")
    assert conclusion.sentences[1:3] == ("bits on that front: 2 in 2.", "dim on that front: 1 in 1, 0 in 1.")


def test_seeds_of_a_codebook_are_one_line(seeded):
    found = seeded("v", (0.1, 0.3), variant="2 bits d4", settings={"bits": 2, "dim": 4, "share": "block"}, **VQ)
    line = conclude(found).tables["codebooks by size"].iloc[0]
    assert abs(line["KL nats/token"] - 0.2) < 1e-12 and line["share"] == "block"
