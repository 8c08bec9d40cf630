"""Richardson-Lucy deconvolution and the Richardson-Lucy Network for 3D fluorescence microscopy.

Everything that a script needs, by the names of the commands; imported when first used, so that
importing the package costs nothing:

>>> import napari_rln as rln
>>> image = rln.read("nucleus.tif")
>>> optics = rln.psf.MicroscopeSettings(na=1.45, immersion_index=1.512, wavelength_um=0.461)
>>> psf = rln.psf.compute_psf(optics, image.voxel_um, planes=image.shape[0])
>>> result = rln.deconvolve(image, psf)
>>> rln.write(result, "deconvolved.ome.tif")
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
