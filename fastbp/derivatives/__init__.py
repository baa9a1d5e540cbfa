"""Derivatives beside the gradient of the loss: of each sample, of second order, and by finite differences."""

from fastbp.derivatives.gradcheck import GradientError, GradientReport, check_gradients
from fastbp.derivatives.per_sample import SampleGradients
from fastbp.derivatives.second_order import CurvaturePoint

__all__ = ["CurvaturePoint", "GradientError", "GradientReport", "SampleGradients", "check_gradients"]
