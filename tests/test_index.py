import faiss
import numpy as np
import pytest
from golden_data import case, index_file
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.errors import IndexFormatError, RocktopError, StorageError, VoiceNotFoundError
from rocktop_ray.features.index import RetrievalIndex, list_count
from rocktop_ray.features.index_file import IndexArrays, parse, serialise


def normal(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def by_faiss(vectors: np.ndarray, lists: int, nprobe: int = 1):
    index = faiss.index_factory(vectors.shape[1], f"IVF{lists},Flat")
    faiss.extract_index_ivf(index).nprobe = nprobe
    index.train(vectors)
    index.add(vectors)
    return index


def data_of(index) -> bytes:
    return faiss.serialize_index(index).tobytes()


def reference_blend(index, units: np.ndarray, rate: float) -> np.ndarray:
    """The formula of RVC, in float64, for units without exact matches and with enough neighbours."""
    scores, ids = index.search(units, 8)
    weights = np.where(ids >= 0, np.square(1 / scores.astype(np.float64)), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    found = index.reconstruct_n(0, index.ntotal)[ids]
    return (found * weights[..., None]).sum(axis=1) * rate + units * (1 - rate)


def test_golden_blend():
    """The golden array is the retrieved mean, before it is mixed with the units (rate 1)."""
    golden = case("v2_48k_f0")
    index = RetrievalIndex.read(index_file(), dim=768)
    units = golden["hubert"][0]
    found = index.search_blend(units, 1.0)
    peak = np.abs(golden["index_blend"]).max()
    assert np.abs(found - golden["index_blend"]).max() <= 1e-6 * peak
    mixed = index.search_blend(units, 0.75)
    expected = golden["index_blend"] * 0.75 + units * 0.25
    assert np.abs(mixed - expected).max() <= 1e-6 * np.abs(expected).max()


def test_golden_file_is_written_again_byte_for_byte():
    data = index_file().read_bytes()
    assert serialise(parse(data)) == data


@pytest.mark.parametrize(("count", "lists", "nprobe"), [(500, 8, 1), (500, 8, 3), (100, 2, 5), (40, 20, 1)])
def test_search_is_that_of_faiss(count, lists, nprobe):
    theirs = by_faiss(normal((count, 16)), lists, nprobe)
    index = RetrievalIndex(parse(data_of(theirs)))
    units = normal((300, 16), 1) * 2
    expected = reference_blend(theirs, units, 0.6)
    assert np.abs(index.search_blend(units, 0.6) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_any_split_of_the_units_gives_the_same():
    index = RetrievalIndex(parse(data_of(by_faiss(normal((900, 24)), 12))))
    units = normal((700, 24), 1)
    whole = index.search_blend(units, 0.75)
    parts = np.concatenate([index.search_blend(part, 0.75) for part in np.array_split(units, [1, 7, 300, 333])])
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_exact_match_takes_all():
    vectors = normal((200, 8))
    index = RetrievalIndex(parse(data_of(by_faiss(vectors, 4))))
    np.testing.assert_allclose(index.search_blend(vectors, 1.0), vectors, atol=1e-6)
    np.testing.assert_allclose(index.search_blend(vectors, 0.5), vectors, atol=1e-6)
    twins = RetrievalIndex(parse(data_of(by_faiss(np.repeat(vectors[:50], 4, axis=0), 2))))
    np.testing.assert_allclose(twins.search_blend(vectors[:50], 1.0), vectors[:50], atol=1e-6)


def test_empty_list_leaves_the_unit_and_short_lists_work():
    centroids = np.array([[10, 0], [-10, 0], [0, 50]], np.float32)
    vectors = np.array([[-9, 1], [-9, -1]], np.float32)
    index = RetrievalIndex(IndexArrays(centroids, np.array([0, 2, 0]), vectors, np.arange(2)))
    units = np.array([[9, 0], [-9, 0], [-9, 1], [1, 40]], np.float32)
    expected = np.array([[9, 0], [-9, 0], [-9, 1], [1, 40]], np.float32)
    np.testing.assert_allclose(index.search_blend(units, 1.0), expected, atol=1e-6)
    reread = faiss.deserialize_index(np.frombuffer(index.to_bytes(), np.uint8))
    assert reread.ntotal == 2 and index.to_bytes() == data_of(reread)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 60),
    dim=st.integers(1, 5),
    scale=st.sampled_from([1e-20, 1e-6, 1.0, 1e6, 1e19, 3e37]),
    rate=st.floats(0, 1, width=32),
    seed=st.integers(0, 99),
)
def test_blend_is_finite_and_inside_the_data(count, dim, scale, rate, seed):
    vectors = (np.clip(normal((count, dim), seed), -2, 2) * scale).astype(np.float32)
    index = RetrievalIndex(IndexArrays(vectors[:1], np.array([count]), vectors, np.arange(count)))
    units = np.concatenate([vectors[:3], (np.clip(normal((5, dim), seed + 1), -2, 2) * scale).astype(np.float32)])
    blended = index.search_blend(units, rate)
    low, high = np.minimum(vectors.min(0), units), np.maximum(vectors.max(0), units)
    slack = 1e-5 * 2 * scale
    assert np.isfinite(blended).all() and (blended >= low - slack).all() and (blended <= high + slack).all()


def test_no_units_and_rate_zero():
    index = RetrievalIndex(parse(data_of(by_faiss(normal((100, 4)), 2))))
    assert index.search_blend(np.zeros((0, 4), np.float32), 0.5).shape == (0, 4)
    units = normal((5, 4))
    assert np.array_equal(index.search_blend(units, 0.0), units)
    with pytest.raises(ValueError, match="rate"):
        index.search_blend(units, 1.5)


def test_dimension_is_checked(tmp_path):
    path = tmp_path / "a.index"
    path.write_bytes(data_of(by_faiss(normal((100, 4)), 2)))
    with pytest.raises(IndexFormatError, match=r"4 numbers.* 768"):
        RetrievalIndex.read(path, dim=768)
    with pytest.raises(IndexFormatError, match="4 numbers"):
        RetrievalIndex.read(path).search_blend(normal((3, 5)), 0.5)


def test_trained_and_added(tmp_path):
    index = by_faiss(normal((100, 4)), 2)
    (tmp_path / "added_IVF2_Flat_nprobe_1_x_v2.index").write_bytes(data_of(index))
    index.reset()
    trained = tmp_path / "trained_IVF2_Flat_nprobe_1_x_v2.index"
    trained.write_bytes(data_of(index))
    assert RetrievalIndex.read(trained).count == 100
    (tmp_path / "added_IVF2_Flat_nprobe_1_x_v2.index").unlink()
    with pytest.raises(IndexFormatError, match="added_"):
        RetrievalIndex.read(trained)


def test_flat_index_and_direct_map():
    vectors = normal((30, 4))
    flat = faiss.IndexFlatL2(4)
    flat.add(vectors)
    units = normal((20, 4), 1)
    expected = reference_blend(flat, units, 1.0)
    np.testing.assert_allclose(RetrievalIndex(parse(data_of(flat))).search_blend(units, 1.0), expected, atol=1e-5)
    mapped = by_faiss(vectors, 1)
    mapped.make_direct_map()
    assert len(parse(data_of(mapped)).vectors) == 30


def test_other_kinds_are_refused(tmp_path):
    vectors = normal((300, 8))
    kinds = ["IVF4,SQ8", "PCA4,IVF4,Flat", "IVF4_HNSW8,Flat", "HNSW8", "IVF4,PQ2x4"]
    others = [faiss.index_factory(8, kind) for kind in kinds]
    others += [faiss.index_factory(8, "IVF4,Flat", faiss.METRIC_INNER_PRODUCT), faiss.index_factory(8, "IVF4,Flat")]
    for index in others[:-1]:
        index.train(vectors)
        index.add(vectors)
    for index in others:
        with pytest.raises(IndexFormatError):
            parse(data_of(index))
    for data in (b"", b"text\n", b"PK\x03\x04", bytes(200)):
        path = tmp_path / "x.index"
        path.write_bytes(data)
        with pytest.raises(IndexFormatError, match=r"^x\.index: "):
            RetrievalIndex.read(path)
    with pytest.raises(VoiceNotFoundError):
        RetrievalIndex.read(tmp_path / "none.index")
    with pytest.raises(IndexFormatError, match="allowed"):
        RetrievalIndex.read(index_file(), max_bytes=1000)
    broken = vectors.copy()
    broken[5, 5] = np.nan
    with pytest.raises(IndexFormatError, match="finite"):
        RetrievalIndex(IndexArrays(broken[:1], np.array([300]), broken, np.arange(300)))


def test_every_truncation_is_refused():
    data = data_of(by_faiss(normal((80, 4)), 2))
    for length in range(0, len(data), 3):
        with pytest.raises(IndexFormatError):
            parse(data[:length])
    with pytest.raises(IndexFormatError):
        parse(data + b"x")


_SAMPLE = data_of(by_faiss(normal((40, 3)), 3))


@settings(max_examples=400, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=5))
def test_damage_is_told_not_raised(edits):
    data = bytearray(_SAMPLE)
    for place, value in edits:
        data[place] = value
    try:
        index = RetrievalIndex(parse(bytes(data)))
        index.search_blend(normal((4, index.dim)), 0.5)
    except RocktopError as error:
        assert error.message and "\n" not in error.message


@pytest.mark.parametrize(
    ("count", "lists"), [(1, 1), (38, 1), (39, 1), (1000, 25), (10_000, 256), (50_000, 1282), (1_000_000, 16_000)]
)
def test_number_of_lists(count, lists):
    assert list_count(count) == lists


@pytest.mark.parametrize("count", [1, 5, 38, 500])
def test_build_holds_every_unit_and_repeats(count, tmp_path):
    vectors = normal((count, 6))
    index = RetrievalIndex.build(vectors, seed=3)
    assert index.count == count and len(index.arrays.sizes) == list_count(count)
    order = np.lexsort(vectors.T), np.lexsort(index.arrays.vectors.T)
    assert np.array_equal(vectors[order[0]], index.arrays.vectors[order[1]])
    assert index.to_bytes() == RetrievalIndex.build(vectors, seed=3).to_bytes()
    path = tmp_path / "anna.index"
    index.save(path)
    theirs = faiss.read_index(str(path))
    assert (theirs.ntotal, theirs.d, faiss.extract_index_ivf(theirs).nprobe) == (count, 6, 1)
    np.testing.assert_array_equal(
        RetrievalIndex.read(path).search_blend(vectors, 0.5), index.search_blend(vectors, 0.5)
    )


def test_build_reduces_many_units():
    index = RetrievalIndex.build(normal((900, 4)), max_vectors=200, seed=1)
    assert index.count == 200
    assert index.to_bytes() == RetrievalIndex.build(normal((900, 4)), max_vectors=200, seed=1).to_bytes()


def test_build_refuses_nothing_and_nan():
    for vectors in (np.zeros((0, 4), np.float32), np.full((5, 4), np.nan, np.float32), np.zeros(4, np.float32)):
        with pytest.raises(IndexFormatError):
            RetrievalIndex.build(vectors)


def test_save_to_nowhere(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        RetrievalIndex.build(normal((5, 2))).save(tmp_path / "file" / "x.index")
