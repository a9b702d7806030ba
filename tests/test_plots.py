import torch

from torchgeo_ctm.plots import map_figure


def test_of_many_classes_those_that_cover_most_are_drawn() -> None:
    """A panel for each of 151 classes takes longer than the epoch that it shows."""
    mask = torch.full((8, 8), 7)
    mask[0, :3] = 150
    truth = torch.full((8, 8), 255)
    truth[1, 0] = 42
    names = [f'class {index}' for index in range(151)]
    figure = map_figure(
        torch.rand(3, 8, 8),
        torch.rand(151, 2, 2),
        mask,
        truth,
        names,
        ['#102030'] * 151,
        ['R', 'G', 'B'],
    )
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles[:3] == ['RGB', 'truth', 'mask']
    assert len(titles) == 16
    assert {'class 7', 'class 42', 'class 150'} < set(titles)
