"""The generated sample catalogue: product photos drawn by code, so that the platform runs without any download."""

from pipeline_project.sample.catalogue import CatalogueSummary, generate_catalogue, product_photo
from pipeline_project.sample.drawing import PRODUCTS, draw_product

__all__ = ["PRODUCTS", "CatalogueSummary", "draw_product", "generate_catalogue", "product_photo"]
