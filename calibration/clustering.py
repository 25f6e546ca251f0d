"""Clusters of a fit split's trajectories: see `detector.clusters`."""

from __future__ import annotations

import torch
from sklearn.cluster import KMeans

from detector.clusters import Clusters
from detector.planes import Planes

# Two thirds up, states say what a question is of, not how it is spelled nor what comes next.
_DEPTH = 2 / 3
_N_DIRECTIONS = 24
# The fewest questions for which a cluster's 95 % point is worth having.
_LEAST = 200
_MOST = 3


def cluster(planes: Planes) -> Clusters | None:
    """Clusters of trajectories, as many as there are questions for, at most 3.

    K-means (Lloyd, 1982) in the leading principal components of one layer. None where there are
    too few questions for two clusters.
    """
    has_look = ~planes[0][:, 0].isnan()
    reached = planes.select(has_look)
    n_clusters = min(_MOST, reached.n_rows // _LEAST)
    if n_clusters < 2:
        return None
    plane = max(1, round(_DEPTH * (planes.n_planes - 1)))
    states = reached[plane].float()
    mean = states.mean(0)
    centred = states - mean
    _, directions = torch.linalg.eigh((centred.T @ centred).double())
    basis = directions.flip(1).T[:_N_DIRECTIONS].float().contiguous()
    found = KMeans(n_clusters, n_init=4, random_state=0).fit((centred @ basis.T).numpy())
    centres = torch.from_numpy(found.cluster_centers_).float()
    return Clusters(torch.tensor(plane), mean, basis, centres)
