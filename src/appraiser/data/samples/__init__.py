"""The sample catalogue: products whose name, category and price can be read off their rendered pictures.

attributes ─▶ titles, pricing                 what the shop writes
     └─▶ scenes ─▶ silhouettes, textures ─▶ drawing   what the camera sees
                                 catalogue    both, as files
"""
