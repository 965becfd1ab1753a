"""What works over any layout: finding it, exporting, replaying, serving."""
