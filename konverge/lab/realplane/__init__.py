"""A real control plane without Docker: etcd, kube-apiserver, kube-controller-manager as child processes."""

from konverge.lab.realplane.assets import Assets, look_up_assets, require_assets
from konverge.lab.realplane.plane import PlaneSettings, RealControlPlane

__all__ = ["Assets", "PlaneSettings", "RealControlPlane", "look_up_assets", "require_assets"]
