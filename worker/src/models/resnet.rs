//! ResNet-18, -34 and -50 under torchvision's (and timm's) parameter names.

use tch::{TchError, Tensor};

use super::layers::{Builder, ConvNorm, ConvShape, Mode, Padding};

const EPS: f64 = 1e-5;
const STAGE_WIDTHS: [i64; 4] = [64, 128, 256, 512];

/// The residual network up to and including its last stage.
#[derive(Debug)]
pub(super) struct ResNet {
    stem: ConvNorm,
    blocks: Vec<Block>,
}

fn shape(inputs: i64, outputs: i64, kernel: i64, stride: i64) -> ConvShape {
    ConvShape { inputs, outputs, kernel, stride, groups: 1, padding: Padding::Symmetric }
}

/// Two or three convolutions and a shortcut.
#[derive(Debug)]
struct Block {
    convs: Vec<ConvNorm>,
    downsample: Option<ConvNorm>,
}

impl Block {
    /// `steps` are (width, kernel, stride) of each convolution.
    fn new(builder: &mut Builder, name: &str, inputs: i64, steps: &[(i64, i64, i64)]) -> Result<Self, TchError> {
        let mut convs = Vec::with_capacity(steps.len());
        let mut channels = inputs;
        for (i, &(width, kernel, stride)) in (1..).zip(steps) {
            let conv = format!("{name}.conv{i}");
            convs.push(builder.conv_norm(
                &conv,
                &format!("{name}.bn{i}"),
                shape(channels, width, kernel, stride),
                EPS,
            )?);
            channels = width;
        }
        let stride = steps.iter().map(|&(_, _, stride)| stride).product();
        let downsample = if stride != 1 || inputs != channels {
            let (conv, norm) = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
            Some(builder.conv_norm(&conv, &norm, shape(inputs, channels, 1, stride), EPS)?)
        } else {
            None
        };
        Ok(Self { convs, downsample })
    }

    fn forward(&self, input: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let mut output = input.shallow_clone();
        for (i, conv) in self.convs.iter().enumerate() {
            output = conv.forward(&output, mode)?;
            if i + 1 < self.convs.len() {
                output = output.f_relu_()?;
            }
        }
        match &self.downsample {
            Some(downsample) => output.f_add_(&downsample.forward(input, mode)?)?,
            None => output.f_add_(input)?,
        }
        .f_relu_()
    }
}

impl ResNet {
    /// Two 3x3 convolutions a block: ResNet-18 and -34.
    pub(super) fn basic(builder: &mut Builder, depths: [usize; 4]) -> Result<Self, TchError> {
        Self::build(builder, depths, 1, |width, stride| vec![(width, 3, stride), (width, 3, 1)])
    }

    /// 1x1, 3x3 (which carries the stride), 1x1 to four times the width: ResNet-50.
    pub(super) fn bottleneck(builder: &mut Builder, depths: [usize; 4]) -> Result<Self, TchError> {
        Self::build(builder, depths, 4, |width, stride| vec![(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)])
    }

    fn build(
        builder: &mut Builder,
        depths: [usize; 4],
        expansion: i64,
        steps: impl Fn(i64, i64) -> Vec<(i64, i64, i64)>,
    ) -> Result<Self, TchError> {
        let stem = builder.conv_norm("conv1", "bn1", shape(3, 64, 7, 2), EPS)?;
        let mut blocks = Vec::new();
        let mut channels = 64;
        for (stage, (&width, depth)) in STAGE_WIDTHS.iter().zip(depths).enumerate() {
            for index in 0..depth {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let name = format!("layer{}.{index}", stage + 1);
                blocks.push(Block::new(builder, &name, channels, &steps(width, stride))?);
                channels = width * expansion;
            }
        }
        Ok(Self { stem, blocks })
    }

    pub(super) fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let stem = self.stem.forward(images, mode)?.f_relu_()?;
        let mut features = stem.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?;
        for block in &self.blocks {
            features = block.forward(&features, mode)?;
        }
        Ok(features)
    }
}
