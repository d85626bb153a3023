"""Degree, threshold and modulus: Google's published values, and refusals where there is none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from crypto.encoding import Encoding
from crypto.errors import InfeasibleParameters
from crypto.graph import complete, harary, random_graph
from crypto.parameters import find_complete, find_graph, find_modulus_bits

GOLDEN = {  # (corrupt, dropout, semi-malicious): (k, t) at 10^2 .. 10^6 clients
    (0.01, 0.05, False): [(8, 2), (20, 10), (22, 11), (26, 13), (28, 13)],
    (0.05, 0.05, False): [(12, 6), (30, 17), (34, 20), (36, 21), (38, 22)],
    (0.10, 0.10, False): [(22, 11), (48, 27), (54, 31), (58, 33), (64, 36)],
    (0.20, 0.10, False): [(32, 21), (68, 44), (80, 51), (88, 55), (92, 58)],
    (0.33, 0.33, False): [(68, 34), (286, 150), (422, 221), (480, 251), (518, 270)],
    (0.05, 0.05, True): [(16, 11), (52, 37), (62, 44), (68, 48), (74, 52)],
    (0.10, 0.10, True): [(32, 22), (96, 67), (122, 85), (134, 93), (146, 101)],
    (0.20, 0.20, True): [(62, 42), (302, 206), (482, 328), (552, 375), (600, 407)],
}


@pytest.mark.parametrize("setting", GOLDEN)
def test_the_finder_reproduces_published_values(setting):
    corrupt, dropout, semi_malicious = setting
    found = [find_graph(10**e, corrupt, dropout, semi_malicious=semi_malicious) for e in range(2, 7)]
    assert [(p.degree, p.threshold) for p in found] == GOLDEN[setting]


def test_a_found_threshold_meets_its_bounds_by_scipys_count():
    n, gamma, delta = 1000, 0.1, 0.1
    p = find_graph(n, gamma, delta)
    assert hypergeom(n, gamma * n, p.degree).sf(p.threshold - 1) <= 2.0**-41 / n
    assert hypergeom(n, (1 - delta) * n, p.degree).cdf(p.threshold - 1) <= 2.0**-20 / n


@pytest.mark.parametrize(
    ("clients", "corrupt", "dropout"), [(10, 0.4, 0.4), (100, 0.5, 0.5), (1, 0, 0), (100, -0.1, 0), (100, 0, 1.0)]
)
def test_infeasible_graphs_are_refused(clients, corrupt, dropout):
    with pytest.raises(InfeasibleParameters):
        find_graph(clients, corrupt, dropout, semi_malicious=True)


def test_complete_graph_thresholds_of_bonawitz():
    assert find_complete(100, 0, 0).threshold == 51
    assert find_complete(99, 1 / 3, 0.3).threshold == 67
    assert find_complete(100, 0.2, 0.5, split_view=False).threshold == 21
    with pytest.raises(InfeasibleParameters, match="corrupt"):
        find_complete(100, 0.4, 0.4)


@pytest.mark.parametrize(
    ("clients", "weight", "bits", "width"),
    [(1024, 1, 22, 32), (1025, 1, 22, 64), (65_537, 1, 16, 32), (65_538, 1, 16, 64), (64, 1 << 10, 16, 32)],
)
def test_the_modulus_holds_the_largest_sum_and_not_one_more(clients, weight, bits, width):
    assert find_modulus_bits(clients, weight, bits) == width
    assert (clients * weight * ((1 << bits) - 1) < 1 << 32) is (width == 32)


def test_a_sum_at_the_very_top_of_the_modulus_does_not_wrap():
    encoding = Encoding(1, 1.0, 16, 1, find_modulus_bits(65_537, 1, 16))
    one = encoding.encode(np.ones(1, np.float32), 1, bytes(32))
    total = (one.astype(np.uint64) * 65_537).astype(encoding.word)
    assert int(total[0]) == (1 << 32) - 1
    assert encoding.decode(total, 65_537)[0][0] == pytest.approx(65_537)


def test_no_modulus_is_no_round():
    with pytest.raises(InfeasibleParameters, match="64 bits"):
        find_modulus_bits(1 << 20, 1 << 31, 24)


@given(st.integers(4, 60), st.data())
def test_the_ring_graph_is_regular_and_symmetric(n, data):
    degree = data.draw(st.integers(1, (n - 1) // 2)) * 2
    if degree >= n:
        return
    ring = data.draw(st.permutations(range(n)))
    graph = harary(ring, degree)
    for u, neighbours in graph.items():
        assert len(set(neighbours)) == degree
        assert u not in neighbours
        assert list(neighbours) == sorted(neighbours)
        assert all(u in graph[v] for v in neighbours)


def test_the_ring_is_random():
    draws = [random_graph(range(30), 2, np.random.default_rng(i).bytes)[0] for i in range(200)]
    assert len(set(draws)) > 100


@pytest.mark.parametrize("degree", [3, 0, 10])
def test_impossible_degrees_are_refused(degree):
    with pytest.raises(InfeasibleParameters, match="degree"):
        harary(range(10), degree)


def test_a_degree_that_reaches_everybody_is_the_complete_graph():
    assert random_graph(range(5), 6, np.random.default_rng(0).bytes) == complete(range(5))
