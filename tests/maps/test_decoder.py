import torch

from torchgeo_ctm.maps.decoder import MapDecoder, MapOptions


def test_the_ensemble_turns_maps_back() -> None:
    image = torch.rand(2, 3, 8, 8)
    decoder = MapDecoder(MapOptions(ensemble='dihedral'))
    found = decoder.average(image, lambda x: {'maps': x, 'probs': x.mean((-2, -1))})
    torch.testing.assert_close(found['maps'], image)
    torch.testing.assert_close(found['probs'], image.mean((-2, -1)))


def test_other_options_are_another_decoder() -> None:
    first = MapDecoder(MapOptions(threshold=0.3, refinement='soft_assignment'))
    second = first.with_options(refinement=None, rule='paint')
    assert first.refines and not second.refines
    assert second.options == MapOptions(threshold=0.3, rule='paint')


def test_painted_scores_are_one_hot() -> None:
    maps, probs = torch.rand(2, 3, 4, 4), torch.tensor([[0.9, 0.6, 0.1]] * 2)
    scores = MapDecoder(MapOptions(rule='paint')).scores(maps, probs, (8, 8))
    assert scores.shape == (2, 3, 8, 8)
    assert (scores.sum(1) == 1).all() and (scores[:, 2] == 0).all()
    shares = MapDecoder(MapOptions()).scores(maps, probs, (8, 8))
    assert shares.shape == maps.shape
    torch.testing.assert_close(shares.sum(1), torch.ones(2, 4, 4))


def test_tags_say_what_scores_depend_on() -> None:
    options = MapOptions(
        refinement='soft_assignment', refinement_options={'trust': 0.5, 'rounds': 2}
    )
    assert MapDecoder(options).tags() == {
        'MAP_SOURCE': 'fused',
        'MAP_RULE': 'argmax',
        'MAP_LABELS': 'predicted',
        'REFINEMENT': 'soft_assignment rounds=2 trust=0.5',
        'ENSEMBLE': 'None',
        'PRESENCE': 'threshold',
        'PRESENCE_THRESHOLD': '0.5',
    }
